"""A front timed anew in another cell, so that `PolicySet.best` answers for that one."""

from dataclasses import asdict, replace

from tokensearch.measure import Budget
from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.records import Comparison, to_json
from tokensearch.search.listener import Listener
from tokensearch.search.timing import Timing

PAIRS = 12, 100  # least and most of each policy


def calibrated(
    policies: PolicySet, timing: Timing, seconds: float, listener: Listener
) -> PolicySet:
    """Return the set with fresh evidence before the old, fastest first.

    seconds  of passes, for all policies together
    """
    share = seconds / max(1, len(policies.policies))
    budget = Budget(2, *PAIRS, seconds=share)
    listener.stage(f"timing {len(policies.policies)} policies")
    found: list[tuple[float, Policy]] = []
    for done, policy in enumerate(policies.policies, 1):
        comparison = timing.time(replace(policy, model=timing.spec), budget)
        found.append((comparison.ratio, _with(policy, comparison, timing)))
        listener.progress(
            done=done,
            total=len(policies.policies),
            seconds_left=share * (len(policies.policies) - done),
            text=f"{comparison.ratio:.2f}x",
        )
    order = sorted(found, key=lambda pair: pair[0])
    return replace(policies, policies=tuple(policy for _, policy in order))


def _with(policy: Policy, comparison: Comparison, timing: Timing) -> Policy:
    """Put what was timed before the evidence of the same accuracies elsewhere."""
    old = policy.evidence[0]
    names = ("ratio", "low", "high", "level", "verdict")
    fresh = Evidence(
        cell=to_json(timing.cell),
        latency=to_json(comparison.candidate),
        accuracy=old.accuracy,
        baseline=to_json(comparison.baseline),
        confirmed=True,
        extra={**old.extra, "comparison": {name: asdict(comparison)[name] for name in names}},
    )
    return policy.with_evidence(fresh, *policy.evidence)
