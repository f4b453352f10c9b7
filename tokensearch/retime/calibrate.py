"""A front timed anew in another cell, so that `PolicySet.best` answers for that one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class CalibratedFront:
    """A front timed anew; mappings are by schedule hash."""

    front: PolicySet  # fastest first by the evidence that counts, which is the first of each policy
    fresh: Mapping[str, Evidence]  # what was timed now, whether it counts or not
    doubts: Mapping[str, str]  # why a timing of now confirms nothing; empty where it confirms

    @property
    def confirms(self) -> bool:
        """Whether any policy that reduces is confirmed by the timings of now."""
        reducing = [policy.schedule_hash for policy in self.front.policies if policy.reduces]
        return not reducing or not all(self.doubts[name] for name in reducing)


def calibrate_front(
    policies: PolicySet, timing: PolicyTimer, seconds: float, listener: ProgressListener
) -> CalibratedFront:
    """Put fresh evidence before the old.

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
    fresh = {policy: _make_evidence(policy, timed, timing) for policy, timed in comparisons.items()}
    counted = [_add_evidence(policy, evidence) for policy, evidence in fresh.items()]
    return CalibratedFront(
        replace(policies, policies=tuple(sorted(counted, key=_ratio))),
        {policy.schedule_hash: evidence for policy, evidence in fresh.items()},
        {policy.schedule_hash: _describe_doubt(timed) for policy, timed in comparisons.items()},
    )


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
    reducing = [timed for policy, timed in comparisons.items() if policy.reduces]
    unsure = sum(bool(_describe_doubt(timed)) for timed in reducing)
    if unsure == len(reducing) > 0:
        listener.caution(
            "too close to call: no policy is confirmed by the timings of now, and anything "
            "confirmed here before is kept; stop other programs, or allow more --seconds"
        )
    elif unsure:
        listener.caution(
            f"{unsure} of {len(reducing)} policies are not confirmed by the timings of now, and "
            f"keep anything confirmed here before: stop other programs, or allow more --seconds"
        )


def _describe_doubt(comparison: Comparison) -> str:
    """Name why a timing is not good enough to rely on; empty where it is."""
    doubts = [doubt.name.lower().replace("_", " ") for doubt in deciding_cautions(comparison)]
    interval = comparison.interval
    reach = max(interval.high - interval.value, interval.value - interval.low)
    if reach > WIDEST * interval.value:
        doubts.append("wide interval")
    return ", ".join(doubts)


def _make_evidence(policy: Policy, comparison: Comparison, timing: PolicyTimer) -> Evidence:
    """Return what was timed now, with the accuracies of before."""
    old = policy.evidence[0]
    return Evidence(
        cell=to_json(timing.cell),
        latency=to_json(comparison.candidate),
        accuracy=old.accuracy,
        baseline=to_json(comparison.baseline),
        confirmed=not _describe_doubt(comparison),
        extra={**old.extra, "comparison": note_comparison(comparison)},
    )


def _add_evidence(policy: Policy, fresh: Evidence) -> Policy:
    """Put what was timed before the evidence of the same accuracies in other cells.

    A timing that confirms nothing does not displace one of the same cell that does.
    """
    elsewhere = (one for one in policy.evidence if one.cell != fresh.cell)
    earlier = [one for one in policy.evidence if one.cell == fresh.cell and one.confirmed]
    best = earlier[0] if earlier and not fresh.confirmed else fresh
    return policy.with_evidence(best, *elsewhere)
