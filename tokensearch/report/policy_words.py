"""What a policy's steps did, in sentences: what may be said where all else is equal."""

from collections.abc import Iterator

from tokensearch.comparable import differences
from tokensearch.costs import Staircase
from tokensearch.ledger import Ledger
from tokensearch.policy import changes_sizes
from tokensearch.policy.file import policy_from_json
from tokensearch.profiles import REDUCING, Profile, Work
from tokensearch.report import text
from tokensearch.report.blocks import Payback, paybacks
from tokensearch.report.estimates import opposite, total

HALF = 0.5  # of what counted work promises: below it, most of the time does not follow the tokens


def policy_words(ledger: Ledger) -> Iterator[str]:
    """What was saved of what could be, which steps do not pay, and what a bias costs."""
    yield from _realised(ledger)
    yield from _unpaid(ledger)
    yield from _proportional(ledger)


def _realised(ledger: Ledger) -> Iterator[str]:
    """What was saved, as a share of what would be if time fell as counted work does."""
    saved = next((term.ms for term in ledger.by_kind if term.kind == "saved"), None)
    ideal_ms = _ideal_saving_ms(ledger)
    if ideal_ms is None or saved is None or not saved.proven:
        return
    share = opposite(saved).value / ideal_ms
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


def _amount(one: Work) -> float:
    """Products where there are any; elsewhere what is moved."""
    return one.flop or one.bytes


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


def stair_words(candidate: Profile, staircase: Staircase) -> Iterator[str]:
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
