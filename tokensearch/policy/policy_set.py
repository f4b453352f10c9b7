"""Several policies of one model, fastest first: what a search hands back."""

from dataclasses import dataclass, field

from tokensearch.errors import NoPolicyError, PolicyError
from tokensearch.policy.policy import Evidence, Json, Policy
from tokensearch.policy.target import Target, parse_target

# Small enough that ten nats weigh less than one image of ten thousand.
TIE_PER_NAT = 1e-6


@dataclass(frozen=True, slots=True)
class PolicySet:
    """Policies with evidence from one cell, fastest first; the un-reduced model is one of them."""

    policies: tuple[Policy, ...]
    extra: Json = field(default_factory=dict, hash=False)  # unknown fields, kept

    def __post_init__(self) -> None:
        for place, policy in enumerate(self.policies):
            if not policy.evidence:
                raise PolicyError(
                    f"policy {place} of the set has no evidence; every member needs some"
                )

    def best(self, latency: str | Target) -> Policy:
        """Return the most accurate policy whose measured median is under `latency`.

        A relative target (`0.6x`) is taken of the baseline in the policy's own evidence. Of equally
        accurate policies the faster one is returned. NoPolicyError if none is fast enough.
        """
        target = parse_target(latency) if isinstance(latency, str) else latency
        under = [policy for policy in self.policies if _meets(policy.evidence[0], target)]
        if not under:
            fastest = (
                min(policy.evidence[0].median_ms for policy in self.policies)
                if self.policies
                else None
            )
            known = "the set is empty" if fastest is None else f"the fastest takes {fastest:.3g} ms"
            raise NoPolicyError(f"no policy of the set meets {target}; {known}")
        return max(
            under,
            key=lambda policy: (accuracy_of(policy.evidence[0]), -policy.evidence[0].median_ms),
        )


def merit(top1: float, kl: float) -> float:
    """Accuracy by which policies are compared: of equal top-1, what diverges less is better.

    Some hundred images leave many policies with the same count of right answers.
    """
    return top1 - TIE_PER_NAT * kl


def accuracy_of(evidence: Evidence) -> float:
    """Merit on the split that choices are made on, 0 to 1.

    A run writes down its `select` accuracy for that, so that the quoted one stays unbiased.
    """
    accuracy = evidence.extra.get("select", evidence.accuracy)
    return merit(float(accuracy["top1"]), float(accuracy.get("kl", 0.0)))


def _meets(evidence: Evidence, target: Target) -> bool:
    baseline_ms, batch = float(evidence.baseline["median_ms"]), int(evidence.cell["batch"])
    return evidence.median_ms <= target.limit_ms(batch=batch, baseline_ms=baseline_ms)
