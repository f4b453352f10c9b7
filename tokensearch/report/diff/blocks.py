"""The differences of a ledger block by block, summed with intervals."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tokensearch.diff.ledger import Kind, Ledger, Term
from tokensearch.records.profile import Phase
from tokensearch.report import text
from tokensearch.report.table import ReportTable
from tokensearch.stats.interval import Interval

NOISE_MARK = "~"
NO_GAIN = "its cut does not pay"

# A step acts between attention and MLP: these phases of its own block saw all tokens still.
_BEFORE: tuple[Phase, ...] = ("qkv", "bias", "attention", "projection")
_KINDS: tuple[Kind, ...] = ("saved", "spent", "shifted")


@dataclass(frozen=True, slots=True)
class Payback:
    """What cutting tokens in one block costs and saves, there and in all later blocks."""

    block: int
    spent: Interval
    saved: Interval  # above 0: time that is saved

    @property
    def loses(self) -> bool:
        """Whether it certainly costs more than it saves."""
        return self.spent.low > self.saved.high


def paybacks(ledger: Ledger) -> tuple[Payback, ...]:
    """Deal what blocks save to the blocks that cut tokens, in proportion to the tokens each cut.

    So is the size bias, which later blocks pay. Empty where the baseline reduces tokens too: a
    difference of two schedules has no such shares.
    """
    cut = _cut(ledger)
    if cut is None:
        return ()
    return tuple(
        Payback(
            block,
            weight_estimate(_shares(block, "spent", cut, ledger)),
            -weight_estimate(_shares(block, "saved", cut, ledger)),
        )
        for block, tokens in enumerate(cut)
        if tokens and any((one.kind, one.block) == ("spent", block) for one in ledger.by_block)
    )


def _cut(ledger: Ledger) -> tuple[int, ...] | None:
    """Tokens that each block of the candidate cuts; None where the baseline cuts some as well."""
    full = int(ledger.baseline.policy["model"]["patch_tokens"])
    if any(left != full for left in ledger.baseline.patch_tokens):
        return None
    left = ledger.candidate.patch_tokens
    return tuple(before - after for before, after in zip((full, *left), left, strict=False))


def _shares(
    block: int, kind: Kind, cut: tuple[int, ...], ledger: Ledger
) -> Iterator[tuple[float, Interval]]:
    """Every term of one kind in the blocks, with the share of it that is one block's doing."""
    for term in ledger.terms:
        if term.kind != kind or term.block is None:
            continue
        if kind == "spent" and term.phase != "bias":
            yield float(term.block == block), term.ms
        else:
            yield _share(block, term, cut, ledger), term.ms


def _share(block: int, term: Term, cut: tuple[int, ...], ledger: Ledger) -> float:
    """Share of the tokens missing in a term's phase that `block` cut."""
    assert term.block is not None, "only blocks lack tokens"
    # Where only prefix tokens pass the last block, its attention has their queries alone.
    early = term.phase in _BEFORE and ledger.candidate.patch_tokens[term.block] > 0
    last = term.block - 1 if early else term.block
    missing = sum(cut[: last + 1])
    return cut[block] / missing if block <= last and missing else 0.0


def block_table(ledger: Ledger) -> ReportTable:
    """Tokens, and what was saved, spent and shifted, a row per block and one for what is outside.

    Milliseconds, candidate minus baseline, but of what is saved; marked are those inside the noise.
    """
    losing = {one.block for one in paybacks(ledger) if one.loses}
    terms: dict[int | None, dict[Kind, Interval]] = {}
    for term in ledger.by_block:
        terms.setdefault(term.block, {})[term.kind] = term.ms
    rows = [
        (
            "outside" if block is None else str(block),
            _tokens(block, ledger),
            *_figures(found, ledger.nets[block], ledger.baseline_ms),
            NO_GAIN if block in losing else "",
        )
        for block, found in terms.items()
    ]
    numbers = (*_KINDS, "net")
    return ReportTable(
        ("block", "tokens", *numbers, ""), rows, numbers=frozenset({"block", *numbers})
    )


def _figures(changes: Mapping[Kind, Interval], net: Interval, whole_ms: float) -> tuple[str, ...]:
    saved, *rest = (changes.get(kind) for kind in _KINDS)
    each = (None if saved is None else -saved, *rest, net)
    return tuple(text.NONE if one is None else mark_noise(one, whole_ms) for one in each)


def mark_noise(change: Interval, whole_ms: float) -> str:
    """A change in milliseconds without unit, marked where it is inside the noise."""
    return f"{'' if change.significant else NOISE_MARK}{text.align_ms(change.value, whole_ms)}"


def _tokens(block: int | None, ledger: Ledger) -> str:
    if block is None:
        return ""
    before, after = (side.patch_tokens[block] for side in (ledger.baseline, ledger.candidate))
    return text.count(after) if before == after else f"{before:,} → {after:,}"


WeightedSum = tuple[float, Interval]


def sum_estimates(estimates: Iterable[Interval]) -> Interval:
    """Sum figures whose intervals hold all at once, as those of a ledger do.

    Then the sums of their ends hold too: wider than an interval of the sum itself, never too
    narrow (Scheffe's projection argument).
    """
    return weight_estimate((1.0, one) for one in estimates)


def weight_estimate(parts: Iterable[WeightedSum]) -> Interval:
    """Sum figures, each times a weight of at least 0."""
    taken = list(parts)
    return Interval(
        sum(weight * one.value for weight, one in taken),
        sum(weight * one.low for weight, one in taken),
        sum(weight * one.high for weight, one in taken),
    )
