"""What a user should know of a ledger, in sentences; each holds the figures that it rests on."""

from collections.abc import Iterator, Mapping
from itertools import chain

from tokensearch.comparable import differences
from tokensearch.ledger import KINDS, Kind, Ledger
from tokensearch.operator_changes import OperatorChange, operator_changes
from tokensearch.profiles import REDUCING, Profile, Work
from tokensearch.report import text
from tokensearch.report.blocks import Payback, paybacks
from tokensearch.report.estimates import opposite, total
from tokensearch.resampling import Estimate

Staircase = Mapping[int, float]  # patch tokens to milliseconds of one block

# Below this share of the pass a GPU waits for its host more than kernels wait for each other:
# back to back, kernels of a pass leave gaps of a few microseconds, which is far less.
BUSY = 0.8
HALF = 0.5  # of what counted work promises: below it, most of the time does not follow the tokens
SAME_COST = 0.01  # share of a block's time: as little tells two steps of a staircase apart
NAMED = 4  # operators that a sentence names at most


def in_words(ledger: Ledger, staircase: Staircase | None = None) -> tuple[str, ...]:
    """Return what a ledger says as sentences, the most important first.

    staircase   milliseconds of one block by its patch tokens, where they have been measured
    """
    if ledger.empty:
        return (empty_sentence(ledger), *_doubts(ledger))
    sentences = chain(
        (verdict_sentence(ledger), sums_sentence(ledger), closing_sentence(ledger)),
        _launches(ledger),
        _realised(ledger),
        _unpaid(ledger),
        _proportional(ledger),
        _stairs(ledger.candidate, staircase or {}),
        _doubts(ledger),
    )
    return tuple(sentences)


def empty_sentence(ledger: Ledger) -> str:
    """Say that nothing is outside the noise, and how large that noise is."""
    reach_ms = max((one.ms.high - one.ms.low) / 2 for one in ledger.by_phase)
    return (
        f"Nothing differs beyond the noise: {_passes(ledger)}; a phase would have had to change "
        f"by more than {text.ms(reach_ms)} to be seen."
    )


def verdict_sentence(ledger: Ledger) -> str:
    """Say which of the two is faster, if that is proven."""
    change = ledger.ratio
    if change.high < 1:
        return f"{_passes(ledger)}: faster."
    if change.low > 1:
        return f"{_passes(ledger)}: slower."
    return f"{_passes(ledger)}: neither is proven to be faster."


def _passes(ledger: Ledger) -> str:
    before, after = ledger.baseline, ledger.candidate
    return (
        f"{after.name} takes {text.ms(after.plain_ms)} a pass, {before.name} "
        f"{text.ms(before.plain_ms)}, {text.ratio_interval(ledger.ratio)}"
    )


def sums_sentence(ledger: Ledger) -> str:
    """Say what was saved, spent and shifted in all."""
    kinds = _by_kind(ledger)
    parts = [
        f"{text.signed_ms_interval(kinds[kind])} {_name(kind, kinds[kind])}{_noise(kinds[kind])}"
        for kind in KINDS
        if kind in kinds and kind != "residual"
    ]
    return f"Of it: {text.listed(parts)}."


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
    """Say whether the terms add up to the measured difference."""
    rest = text.signed_ms_interval(ledger.residual.ms)
    if ledger.residual.ms.proven:
        return (
            f"The ledger does not close: {rest}, {text.percent(ledger.closing)} of the "
            "difference, belong to no term."
        )
    if not ledger.difference.proven:
        return f"The ledger closes: its residual of {rest} is inside the noise."
    return (
        f"The ledger closes to {text.percent(ledger.closing)} of the difference: its residual of "
        f"{rest} is inside the noise."
    )


def _launches(ledger: Ledger) -> Iterator[str]:
    """A GPU that waits for its host."""
    before, after = (_busy_share(side) for side in (ledger.baseline, ledger.candidate))
    if after is None or after >= BUSY or ledger.candidate.cell.backend == "cudagraph":
        return
    if before is not None and before < BUSY:
        yield (
            f"Launch-bound: the GPU works only {text.percent(before)} of the baseline's pass and "
            f"{text.percent(after)} of the candidate's, so fewer tokens cannot help; try "
            "--backend cudagraph, or a larger batch."
        )
    else:
        known = "" if before is None else f" ({text.percent(before)} of the baseline's)"
        yield (
            f"The candidate has become launch-bound: the GPU works only {text.percent(after)} of "
            f"its pass{known}, so cutting more tokens cannot help; try --backend cudagraph."
        )


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
    """Proportional attention, where it is proven to cost something."""
    if not ledger.candidate.policy.get("proportional_attention"):
        return
    bias = [term.ms for term in ledger.by_phase if term.phase == "bias" and term.ms.proven]
    slower = [
        term.ms
        for term in ledger.by_phase
        if (term.kind, term.phase) == ("shifted", "attention") and term.ms.low > 0
    ]
    if not bias and not slower:
        return
    costs = total([*bias, *slower])
    why = "the bias takes attention off its fast path" if slower else "its bias has to be made"
    kernels = _kernels(ledger) if slower else ""
    yield (
        f"Proportional attention costs {text.percent(costs.value / ledger.baseline.plain_ms)} of "
        f"the baseline's pass ({text.signed_ms_interval(costs)}): {why}{kernels}."
    )


def _kernels(ledger: Ledger) -> str:
    """Name what attention runs now and did not run before."""
    before, after = ledger.baseline.sdpa, ledger.candidate.sdpa
    if before and after and before != after:
        return f" ({before} → {after})"
    changes = attention_changes(ledger)
    gone = [one.name for one in changes if one.change == "removed"][:NAMED]
    come = [one.name for one in changes if one.change == "added"][:NAMED]
    if not gone and not come:
        return ""
    return f" (removed: {text.listed(gone)}; added: {text.listed(come)})"


def attention_changes(ledger: Ledger) -> tuple[OperatorChange, ...]:
    """Compare the operators and kernels of attention itself; on a GPU kernels alone."""
    sides = [
        [one for one in side.operators if one.phase == "attention"]
        for side in (ledger.baseline, ledger.candidate)
    ]
    if any(one.kernel for side in sides for one in side):
        sides = [[one for one in side if one.kernel] for side in sides]
    return operator_changes(*sides)


def _stairs(candidate: Profile, staircase: Staircase) -> Iterator[str]:
    """Token counts that cost as much as a larger one."""
    for tokens in dict.fromkeys(candidate.patch_tokens):
        if tokens not in staircase:
            continue
        limit_ms = staircase[tokens] * (1 + SAME_COST)
        more = max(count for count, ms in staircase.items() if ms <= limit_ms)
        if more > tokens:
            yield f"{text.count(tokens)} tokens cost as much as {text.count(more)} here."


def _doubts(ledger: Ledger) -> Iterator[str]:
    """What limits the comparison."""
    before, after = ledger.baseline, ledger.candidate
    apart = differences(before.cell, after.cell)
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
