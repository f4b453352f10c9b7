"""A front timed anew in another cell, so that `PolicySet.best` answers for that one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil

from tokensearch.errors import PolicyError
from tokensearch.evaluation.latency import MAX_TOGETHER, PolicyTimer
from tokensearch.measure import TimingBudget, deciding_cautions, note_comparison
from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Caution, Comparison, to_json
from tokensearch.runtime import check_policy

WARMUP, MAX_ROUNDS = 2, 60  # a dozen rounds show something, thirty are enough
WIDEST = 0.05  # of a ratio, either way, for a timing that confirms


def calibrate_front(
    policies: PolicySet, timing: PolicyTimer, seconds: float, listener: ProgressListener
) -> PolicySet:
    """Return the set with fresh evidence before the old, fastest first.

    Evidence of an equal cell gives way to the fresh, unless it alone was confirmed.

    seconds  of passes, for all policies together

    Raises:
        PolicyError: The set is empty, or of a model with another geometry.
    """
    if not policies.policies:
        raise PolicyError("the set holds no policies that could be timed")
    fitting = {policy: _fit(policy, timing) for policy in policies.policies}
    listener.stage("timing the policies of the front in turn", unit="rounds")
    comparisons: dict[Policy, Comparison] = {}
    for some in _split_into_rounds(tuple(fitting)):
        budget = TimingBudget(
            warmup=WARMUP, max_rounds=MAX_ROUNDS, seconds=seconds * len(some) / len(fitting)
        )
        told = partial(_tell, listener, budget)
        timed = timing.time_together([fitting[policy] for policy in some], budget, tell=told)
        comparisons |= zip(some, timed, strict=True)
    _warn(comparisons, listener)
    fresh = [_add_evidence(policy, timed, timing) for policy, timed in comparisons.items()]
    return replace(policies, policies=tuple(sorted(fresh, key=_ratio)))


def _ratio(policy: Policy) -> float:
    """Of the evidence that counts, which may be one of before, without a paired ratio."""
    evidence = policy.evidence[0]
    medians = evidence.median_ms / float(evidence.baseline["median_ms"])
    return float(evidence.extra.get("comparison", {}).get("ratio", medians))


def _split_into_rounds(policies: Sequence[Policy]) -> list[Sequence[Policy]]:
    """As many rounds as are needed, about equally full."""
    count = ceil(len(policies) / MAX_TOGETHER)
    return [policies[start::count] for start in range(count)]


def _tell(listener: ProgressListener, budget: TimingBudget, rounds: int, spent: float) -> None:
    expected = round(rounds * budget.seconds / spent)
    listener.progress(
        done=rounds,
        total=max(rounds, budget.min_rounds, min(budget.max_rounds, expected)),
        seconds_left=max(0.0, budget.seconds - spent),
        text="",
    )


def _fit(policy: Policy, timing: PolicyTimer) -> Policy:
    """Return the policy for the model at hand, on whose weights time does not depend."""
    check_policy(timing.model, replace(policy, model=replace(policy.model, weights=None)))
    return replace(policy, model=timing.spec)


def _warn(comparisons: Mapping[Policy, Comparison], listener: ProgressListener) -> None:
    """Say every doubt about a timing, once; and how many policies none confirms."""
    doubts = {caution for comparison in comparisons.values() for caution in comparison.cautions}
    for caution in Caution:
        if caution in doubts:
            listener.caution(caution.value)
    unsure = sum(not _is_confirmed(comparison) for comparison in comparisons.values())
    if unsure:
        listener.caution(
            f"{unsure} of {len(comparisons)} policies are not confirmed here, by few passes, other "
            f"programs at work or an interval wider than {100 * WIDEST:.0f} % either way, and keep "
            f"what was confirmed here before: allow more --seconds"
        )


def _is_confirmed(comparison: Comparison) -> bool:
    """Whether a timing is good enough to rely on."""
    interval, doubts = comparison.interval, deciding_cautions(comparison)
    reach = max(interval.high - interval.value, interval.value - interval.low)
    return not doubts and reach <= WIDEST * interval.value


def _add_evidence(policy: Policy, comparison: Comparison, timing: PolicyTimer) -> Policy:
    """Put what was timed before the evidence of the same accuracies in other cells.

    A timing that confirms nothing does not displace one of the same cell that does.
    """
    old = policy.evidence[0]
    fresh = Evidence(
        cell=to_json(timing.cell),
        latency=to_json(comparison.candidate),
        accuracy=old.accuracy,
        baseline=to_json(comparison.baseline),
        confirmed=_is_confirmed(comparison),
        extra={**old.extra, "comparison": note_comparison(comparison)},
    )
    elsewhere = (one for one in policy.evidence if one.cell != fresh.cell)
    earlier = [one for one in policy.evidence if one.cell == fresh.cell and one.confirmed]
    best = earlier[0] if earlier and not fresh.confirmed else fresh
    return policy.with_evidence(best, *elsewhere)
