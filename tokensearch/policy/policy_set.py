"""Several policies of one model, fastest first: what a search hands back."""

from dataclasses import dataclass, field

from tokensearch.errors import NoPolicyError, PolicyError
from tokensearch.policy.objective import objective_value
from tokensearch.policy.policy import Evidence, Json, Policy
from tokensearch.policy.target import Target, parse_target


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies with evidence from one cell, fastest first; the baseline is one of them."""

    policies: tuple[Policy, ...]
    extra: Json = field(default_factory=dict, hash=False)  # unknown fields, kept

    def __post_init__(self) -> None:
        for place, policy in enumerate(self.policies):
            if not policy.evidence:
                raise PolicyError(
                    f"policy {place} of the set has no evidence; every member needs some"
                )

    def best(self, latency: str | Target) -> Policy:
        """Return the policy of most worth whose measured median is under `latency`.

        A relative target (`0.6x`) is taken of the baseline in the policy's own evidence. Of equally
        good policies the faster one is returned. NoPolicyError if none is fast enough.
        """
        target = latency if isinstance(latency, Target) else parse_target(str(latency))
        under = [policy for policy in self.policies if _meets(policy.evidence[0], target)]
        if not under:
            raise NoPolicyError(f"no policy of the set meets {target}; {self._nearest(target)}")
        return max(
            under,
            key=lambda policy: (worth_of(policy.evidence[0]), -policy.evidence[0].median_ms),
        )

    def _nearest(self, target: Target) -> str:
        """Say what could be asked for."""
        if not self.policies:
            return "the set is empty"
        found = [policy.evidence[0] for policy in self.policies]
        one = min(found, key=lambda one: one.median_ms / _limit_ms(one, target))
        share = one.median_ms / float(one.baseline["median_ms"])
        return f"the fastest takes {one.median_ms:.3g} ms, {share:.3f}x of the baseline"


def worth_of(evidence: Evidence) -> float:
    """Worth on the split that choices are made on, by the objective of the run that measured it.

    A run writes down its `select` accuracy for that, so that the quoted one stays unbiased.
    """
    accuracy = evidence.extra.get("select", evidence.accuracy)
    return objective_value(accuracy, evidence.extra.get("objective", "top1"))


def _meets(evidence: Evidence, target: Target) -> bool:
    return evidence.median_ms <= _limit_ms(evidence, target)


def _limit_ms(evidence: Evidence, target: Target) -> float:
    baseline_ms, batch = float(evidence.baseline["median_ms"]), int(evidence.cell["batch"])
    return target.limit_ms(batch=batch, baseline_ms=baseline_ms)
