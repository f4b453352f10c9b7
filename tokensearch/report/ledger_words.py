"""What a user should know of a ledger, in sentences; each holds the figures that it rests on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from tokensearch.comparable import differences
from tokensearch.costs import Tread
from tokensearch.ledger import KINDS, Kind, Ledger
from tokensearch.policy import changes_sizes
from tokensearch.policy.file import policy_from_json
from tokensearch.profiles import REDUCING, Profile, Work
from tokensearch.records import Cell
from tokensearch.report import text
from tokensearch.report.blocks import Payback, paybacks
from tokensearch.report.estimates import opposite, total
from tokensearch.resampling import Estimate

# Below this share of the pass a GPU waits for its host more than kernels wait for each other:
# back to back, kernels of a pass leave gaps of a few microseconds, which is far less.
BUSY = 0.8
# Of a pass in which the GPU works less than this, fewer tokens shorten the smaller part.
IDLE = 0.5
HALF = 0.5  # of what counted work promises: below it, most of the time does not follow the tokens


@dataclass(frozen=True, slots=True)
class Staircase:
    """Token counts that cost the same, and where: what these words need of a cost table."""

    treads: tuple[Tread, ...]
    cell: Cell


def in_words(ledger: Ledger, staircase: Staircase | None = None) -> tuple[str, ...]:
    """Return what a ledger says as sentences, the most important first.

    staircase   where costs have been swept
    """
    if ledger.empty:
        return (empty_sentence(ledger), *_doubts(ledger))
    sentences = chain(
        (verdict_sentence(ledger),),
        _terms(ledger),
        _launches(ledger),
        () if _cells_apart(ledger) else _policys_doing(ledger),
        () if staircase is None else _stairs(ledger.candidate, staircase),
        _doubts(ledger),
    )
    return tuple(sentences)


def _terms(ledger: Ledger) -> Iterator[str]:
    """What the terms add up to, where passes have any."""
    if ledger.split:
        yield sums_sentence(ledger)
        yield closing_sentence(ledger)
    else:
        yield "Compiled and replayed passes cannot be split by block, so there are no terms."


def _policys_doing(ledger: Ledger) -> Iterator[str]:
    """What may be said of a policy only where all else is equal."""
    yield from _realised(ledger)
    yield from _unpaid(ledger)
    yield from _proportional(ledger)


def _cells_apart(ledger: Ledger) -> tuple[str, ...]:
    return differences(ledger.baseline.cell, ledger.candidate.cell)


def empty_sentence(ledger: Ledger) -> str:
    """Say that nothing is outside the noise, and how large that noise is."""
    parts, what = (ledger.by_phase, "phase") if ledger.split else (ledger.by_kind, "pass")
    reach_ms = max((one.ms.high - one.ms.low) / 2 for one in parts)
    return (
        f"Nothing differs beyond the noise: {_passes(ledger)}; a {what} would have had to change "
        f"by more than {text.ms(reach_ms)} to be seen."
    )


def verdict_sentence(ledger: Ledger) -> str:
    """Say which of the two is faster, if that is proven, and whether it is known why.

    Of two cells, say neither: a larger batch is not slower.
    """
    passes, change = _passes(ledger), ledger.ratio
    if _cells_apart(ledger):
        return f"{passes}, in another cell."
    if change.low <= 1 <= change.high:
        return f"{passes}: neither is proven to be faster."
    verdict = "faster" if change.high < 1 else "slower"
    if not ledger.split or any(one.ms.proven for one in (*ledger.terms, *ledger.by_kind)):
        return f"{passes}: {verdict}."
    by = text.ms(abs(ledger.difference.value))
    return f"{passes}: {verdict} by {by}; no single term is outside the noise."


def _passes(ledger: Ledger) -> str:
    before, after = ledger.baseline, ledger.candidate
    return (
        f"{after.name} takes {text.ms(ledger.candidate_ms)} a pass, {before.name} "
        f"{text.ms(ledger.baseline_ms)}, {text.ratio_interval(ledger.ratio)}"
    )


def sums_sentence(ledger: Ledger) -> str:
    """Say what was saved, spent and shifted in all."""
    kinds, apart = _by_kind(ledger), bool(_cells_apart(ledger))
    parts = [
        f"{text.signed_ms_interval(change)} "
        f"{_NEUTRAL[kind] if apart else _name(kind, change)}{_noise(change)}"
        for kind, change in ((kind, kinds[kind]) for kind in KINDS if kind in kinds)
        if kind != "residual"
    ]
    return f"Of it: {text.listed(parts)}."


_NEUTRAL: dict[Kind, str] = {
    "saved": "in the model's own phases at other tokens",
    "spent": "in reducing tokens",
    "shifted": "in the model's own phases at equal tokens",
}


def _name(kind: Kind, change: Estimate) -> str:
    match kind:
        case "saved":
            return "added by more tokens" if change.low > 0 else "saved by fewer tokens"
        case "spent":
            return f"{'no longer ' if change.high < 0 else ''}spent on reducing them"
        case _:
            return "shifted in the model's own phases at equal tokens"


def _noise(change: Estimate) -> str:
    return "" if change.proven else " (inside the noise)"


def closing_sentence(ledger: Ledger) -> str:
    """Say whether the terms add up to the measured difference, all but a little of it."""
    rest, share = text.signed_ms_interval(ledger.residual.ms), text.percent(ledger.closing)
    proven = ledger.residual.ms.proven
    if ledger.closes:
        noise = "" if proven else ", inside the noise"
        return f"The ledger closes to {share} of the difference: its residual is {rest}{noise}."
    if proven:
        return f"The ledger does not close: {rest}, {share} of the difference, belong to no term."
    return (
        f"Not known whether the ledger closes: its residual of {rest} is {share} of the "
        "difference, inside the noise; time it for longer."
    )


def _launches(ledger: Ledger) -> Iterator[str]:
    """A GPU that waits for its host."""
    before, after = (_busy_share(side) for side in (ledger.baseline, ledger.candidate))
    if after is None or after >= BUSY or ledger.candidate.cell.backend == "cudagraph":
        return
    became = before is None or before >= BUSY
    known = "" if before is None else f" ({text.percent(before)} of the baseline's)"
    works = f"the GPU works only {text.percent(after)} of the candidate's pass{known}"
    remedy = "try --backend cudagraph" if became else "try --backend cudagraph, or a larger batch"
    if after >= IDLE or ledger.ratio.high < 1:
        yield (
            f"Launches take their time: {works}, and {text.percent(1 - after)} of the pass are "
            f"gaps that fewer tokens do not shorten; {remedy}."
        )
    elif became:
        yield (
            f"The candidate has become launch-bound: {works}, so cutting more tokens cannot help; "
            f"{remedy}."
        )
    else:
        yield f"Launch-bound: {works}, so fewer tokens cannot help; {remedy}."


def _busy_share(profile: Profile) -> float | None:
    return None if profile.busy_ms is None else profile.busy_ms / profile.plain.median_ms


def _realised(ledger: Ledger) -> Iterator[str]:
    """What was saved, as a share of what would be if time fell as counted work does."""
    ideal_ms, kinds = ideal_saving_ms(ledger), _by_kind(ledger)
    if ideal_ms is None or "saved" not in kinds or not kinds["saved"].proven:
        return
    saved_ms = opposite(kinds["saved"]).value
    share = saved_ms / ideal_ms
    words = (
        f"If time fell as counted work does, {text.ms(ideal_ms)} would be saved: "
        f"{text.percent(share)} of it was"
    )
    if share < HALF:
        words += ", so most of the model's time here does not follow its tokens; try a larger batch"
    yield f"{words}."


def ideal_saving_ms(ledger: Ledger) -> float | None:
    """Time saved if every phase of the host fell as its work; None where none was counted."""
    before, after = _work(ledger.baseline), _work(ledger.candidate)
    if not before or not after:
        return None
    whole_ms = {
        (item.block, item.phase): ledger.baseline.phase_ms(item.phase, (item.block,))
        for item in ledger.baseline.stamped
    }
    saving_ms = sum(
        ms * (1 - after.get(place, 0.0) / before[place])
        for place, ms in whole_ms.items()
        if before.get(place)
    )
    return saving_ms if saving_ms > 0 else None


def _work(profile: Profile) -> dict[tuple[int | None, str], float]:
    return {
        (one.block, one.phase): _amount(one) for one in profile.work if one.phase not in REDUCING
    }


def _amount(one: Work) -> float:
    """Products where there are any; elsewhere what is moved."""
    return one.flop or one.bytes


def _by_kind(ledger: Ledger) -> dict[Kind, Estimate]:
    return {term.kind: term.ms for term in ledger.by_kind}


def _unpaid(ledger: Ledger) -> Iterator[str]:
    """Steps that cost more than they save."""
    losing = [one for one in paybacks(ledger) if one.loses]
    if len(losing) == 1:
        one = losing[0]
        yield f"Block {one.block} spends more than it saves there and later: {_against(one)}."
    elif losing:
        named = [f"{one.block} ({_against(one)})" for one in losing]
        yield f"Blocks {text.listed(named)} each spend more than they save there and later."


def _against(one: Payback) -> str:
    return f"{text.ms(one.spent.value)} against {text.ms(max(0.0, one.saved.value))}"


def _proportional(ledger: Ledger) -> Iterator[str]:
    """Proportional attention, where the candidate alone has it and it is proven to cost time."""
    before, after = ledger.baseline, ledger.candidate
    if _masks(before) or not _masks(after):
        return
    bias = [term.ms for term in ledger.by_phase if term.phase == "bias" and term.ms.proven]
    slower = [
        term.ms
        for term in ledger.by_phase
        if (term.kind, term.phase) == ("shifted", "attention") and term.ms.low > 0
    ]
    if slower and None not in (before.sdpa, after.sdpa) and before.sdpa != after.sdpa:
        bias += slower
        why = f"the bias takes attention off its fast path ({before.sdpa} → {after.sdpa})"
    else:
        why = "its bias has to be made"
    costs = total(bias)
    if costs.low > 0:
        yield (
            f"Proportional attention costs {text.percent(costs.value / ledger.baseline_ms)} of the "
            f"baseline's pass ({text.signed_ms_interval(costs)}): {why}."
        )


def _masks(profile: Profile) -> bool:
    """Whether attention gets a bias: without sizes to go by, proportional attention adds none."""
    policy = policy_from_json(profile.policy)
    return policy.proportional_attention and any(map(changes_sizes, policy.steps))


def _stairs(candidate: Profile, staircase: Staircase) -> Iterator[str]:
    """Token counts of the candidate that are proven to cost as much as a larger one."""
    apart = differences(staircase.cell, candidate.cell)
    if apart:
        yield (
            "The costs were swept in another cell, so which counts cost alike here is not known: "
            f"{text.listed(list(apart))}."
        )
        return
    for tokens in dict.fromkeys(candidate.patch_tokens):
        for tread in staircase.treads:
            if tread.real and tread.first <= tokens < tread.last:
                yield (
                    f"{text.count(tokens)} patch tokens cost as much as {text.count(tread.last)} "
                    "here."
                )


def _doubts(ledger: Ledger) -> Iterator[str]:
    """What limits the comparison."""
    before, after = ledger.baseline, ledger.candidate
    apart = _cells_apart(ledger)
    if apart:
        yield (
            f"The cells differ, so not all of it is the policy's doing: {text.listed(list(apart))}."
        )
    weights = [side.policy["model"].get("weights") for side in (before, after)]
    if all(weights) and weights[0] != weights[1]:
        digests = " against ".join(text.short(one) for one in weights)
        yield f"The models have different weights: {digests}."
    if not ledger.paired:
        yield (
            "The two were not profiled in turn: how the machine drifted between them is in the "
            "terms and in the residual."
        )
    traced = [side.tracing for side in (before, after) if side.tracing is not None]
    if traced:
        yield (
            f"Under the PyTorch profiler a pass takes {text.ratio(max(traced))} as long: "
            "operators and kernels say where time goes, not how much there is of it."
        )
