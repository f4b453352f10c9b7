"""A ledger, and what a policy did to it, in sentences."""

from collections.abc import Iterator
from itertools import chain

from tokensearch.costs import Staircase, describe_equal_cost
from tokensearch.diff.ledger import CLOSED, KINDS, Kind, Ledger
from tokensearch.policy import changes_sizes
from tokensearch.policy.file import policy_from_json
from tokensearch.records.comparability import differences
from tokensearch.records.launch_bound import WAY_OUT, State, launch_state
from tokensearch.records.measurements import REPLAYED
from tokensearch.records.profile import REDUCING, Profile, Work
from tokensearch.report import text
from tokensearch.report.diff.blocks import Payback, paybacks, sum_estimates
from tokensearch.stats.interval import Interval

LONGER = "profile for longer (diff --seconds)"


def ledger_sentences(ledger: Ledger, staircase: Staircase | None = None) -> tuple[str, ...]:
    """Return what a ledger says as sentences, the most important first.

    staircase   where costs have been swept
    """
    if ledger.empty:
        return (empty_sentence(ledger), *_limitations(ledger))
    sentences = chain(
        (verdict_sentence(ledger),),
        _terms(ledger),
        _launches(ledger),
        () if _cells_apart(ledger) else policy_sentences(ledger),
        () if staircase is None else staircase_sentences(ledger.candidate, staircase),
        _limitations(ledger),
    )
    return tuple(sentences)


def _terms(ledger: Ledger) -> Iterator[str]:
    """What the terms add up to, where passes have any."""
    if ledger.split:
        yield sums_sentence(ledger)
        yield closing_sentence(ledger)
    else:
        yield "These passes were not split by block, so there are no terms."


def _cells_apart(ledger: Ledger) -> tuple[str, ...]:
    return differences(ledger.baseline.cell, ledger.candidate.cell)


def empty_sentence(ledger: Ledger) -> str:
    """Say that nothing is outside the noise, and how large that noise is."""
    parts, what = (ledger.by_phase, "phase") if ledger.split else (ledger.by_kind, "pass")
    reach_ms = max((one.ms.high - one.ms.low) / 2 for one in parts)
    return (
        f"Nothing differs beyond the noise: {_passes(ledger)}; a {what} would have had to change "
        f"by more than {text.ms(reach_ms)} to be seen; to see smaller ones, {LONGER}."
    )


def verdict_sentence(ledger: Ledger) -> str:
    """Say which of the two is faster, if that is significant, and whether it is known why.

    Of two cells, say neither: a larger batch is not slower.
    """
    passes, change = _passes(ledger), ledger.ratio
    if _cells_apart(ledger):
        return f"{passes}, in another cell."
    if change.low <= 1 <= change.high:
        return f"{passes}: neither is significantly faster; {LONGER}."
    verdict = "faster" if change.high < 1 else "slower"
    if not ledger.split or any(one.ms.significant for one in (*ledger.terms, *ledger.by_kind)):
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
    kinds = {term.kind: term.ms for term in ledger.by_kind}
    apart = bool(_cells_apart(ledger))
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


def _name(kind: Kind, change: Interval) -> str:
    match kind:
        case "saved":
            return "added by more tokens" if change.low > 0 else "saved by fewer tokens"
        case "spent":
            return f"{'no longer ' if change.high < 0 else ''}spent on reducing them"
        case _:
            return "shifted in the model's own phases at equal tokens"


def _noise(change: Interval) -> str:
    return "" if change.significant else " (inside the noise)"


def closing_sentence(ledger: Ledger) -> str:
    """Say whether the terms add up to the measured difference, all but a little of it."""
    rest, share = text.signed_ms_interval(ledger.residual.ms), text.percent(ledger.closing)
    significant = ledger.residual.ms.significant
    if ledger.floor_gap is not None and ledger.floor_closing > max(CLOSED, ledger.closing):
        return _floor_sentence(ledger.floor_gap, text.percent(ledger.floor_closing))
    if ledger.closes:
        noise = "" if significant else ", inside the noise"
        return f"The ledger closes to {share} of the difference: its residual is {rest}{noise}."
    if significant:
        return f"The ledger does not close: {rest}, {share} of the difference, belong to no term."
    return (
        f"Not known whether the ledger closes: its residual of {rest} is {share} of the "
        f"difference, inside the noise; {LONGER}."
    )


def _floor_sentence(gap: Interval, share: str) -> str:
    fault = "Saved and shifted are not told apart"
    told = (
        f"the phases of the floors differ from plain passes of them by "
        f"{text.signed_ms_interval(gap)}, {share} of the difference"
    )
    return f"{fault}: {told}." if gap.significant else f"{fault} yet: {told}; {LONGER}."


def _launches(ledger: Ledger) -> Iterator[str]:
    """A GPU that waits for its host."""
    before, after = (_busy_share(side) for side in (ledger.baseline, ledger.candidate))
    was, state = (launch_state_of(side) for side in (ledger.baseline, ledger.candidate))
    if after is None or state not in {"gaps", "bound"}:
        return
    became = was not in {"gaps", "bound"}
    known = "" if before is None else f" ({text.percent(before)} of the baseline's)"
    works = f"the GPU works only {text.percent(after)} of the candidate's pass{known}"
    remedy = "try --backend cudagraph" if became else WAY_OUT
    if state == "gaps" or ledger.ratio.high < 1:
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


def launch_state_of(profile: Profile) -> State | None:
    """Whether a profiled pass waits for its launches; None if nobody knows, or it is replayed."""
    if profile.cell.backend in REPLAYED:
        return None
    return launch_state(pass_ms=profile.plain.median_ms, busy_ms=profile.busy_ms)


def _limitations(ledger: Ledger) -> Iterator[str]:
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
    if traced and max(traced) > 1:
        yield (
            f"Under the PyTorch profiler a pass takes {text.ratio(max(traced))} as long: "
            "operators and kernels say where time goes, not how much there is of it."
        )


HALF = 0.5  # of what counted work promises: below it, most of the time does not follow the tokens


def policy_sentences(ledger: Ledger) -> Iterator[str]:
    """What was saved of what could be, which steps do not pay, and what a bias costs."""
    yield from _realised(ledger)
    yield from _unpaid(ledger)
    yield from _proportional(ledger)


def _realised(ledger: Ledger) -> Iterator[str]:
    """What was saved, as a share of what would be if time fell as counted work does."""
    saved = next((term.ms for term in ledger.by_kind if term.kind == "saved"), None)
    ideal_ms = _ideal_saving_ms(ledger)
    if ideal_ms is None or saved is None or not saved.significant:
        return
    share = -saved.value / ideal_ms
    words = (
        f"If time fell as counted work does, {text.ms(ideal_ms)} would be saved: "
        f"{text.percent(share)} of it was"
    )
    if share < HALF:
        words += ", so most of the model's time here does not follow its tokens; try a larger batch"
    yield f"{words}."


def _ideal_saving_ms(ledger: Ledger) -> float | None:
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


def _amount(work: Work) -> float:
    """Products where there are any; elsewhere what is moved."""
    return work.flop or work.bytes


def _unpaid(ledger: Ledger) -> Iterator[str]:
    """Steps that cost more than they save."""
    losing = [payback for payback in paybacks(ledger) if payback.loses]
    if len(losing) == 1:
        only = losing[0]
        yield f"Block {only.block} spends more than it saves there and later: {_against(only)}."
    elif losing:
        named = [f"{payback.block} ({_against(payback)})" for payback in losing]
        yield f"Blocks {text.listed(named)} each spend more than they save there and later."


def _against(payback: Payback) -> str:
    return f"{text.ms(payback.spent.value)} against {text.ms(max(0.0, payback.saved.value))}"


def _proportional(ledger: Ledger) -> Iterator[str]:
    """Proportional attention, where the candidate alone has it and it costs time significantly."""
    before, after = ledger.baseline, ledger.candidate
    if _masks(before) or not _masks(after):
        return
    bias = [term.ms for term in ledger.by_phase if term.phase == "bias" and term.ms.significant]
    slower = [
        term.ms
        for term in ledger.by_phase
        if (term.kind, term.phase) == ("shifted", "attention") and term.ms.low > 0
    ]
    if slower and after.sdpa not in (before.sdpa, "triton", None) and before.sdpa is not None:
        bias += slower
        why = f"the bias takes attention off its fast path ({before.sdpa} → {after.sdpa})"
    else:
        why = "its bias has to be made"
    costs = sum_estimates(bias)
    if costs.low > 0:
        yield (
            f"Proportional attention costs {text.percent(costs.value / ledger.baseline_ms)} of the "
            f"baseline's pass ({text.signed_ms_interval(costs)}): {why}."
        )


def _masks(profile: Profile) -> bool:
    """Whether attention gets a bias: without sizes to go by, proportional attention adds none."""
    policy = policy_from_json(profile.policy)
    return policy.proportional_attention and any(map(changes_sizes, policy.steps))


def staircase_sentences(candidate: Profile, staircase: Staircase) -> Iterator[str]:
    """Token counts of the candidate that cost as much as a larger one, beyond the noise."""
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
                yield f"{describe_equal_cost(tokens, tread.last)}."
