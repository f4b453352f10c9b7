"""The static twin of a policy whose counts differ from image to image."""

from dataclasses import replace

from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, Prune, Step, Threshold


def freeze(policy: Policy) -> Policy:
    """Return the policy that keeps, of every image, as many tokens as thresholds keep in the mean.

    Its evidence is not that of the original, and is left out. PolicyError where counts are static.
    """
    if policy.counts != "per_image":
        raise PolicyError(
            "the policy keeps equal counts for all images already; only policies with thresholds "
            "can be made static"
        )
    return replace(
        policy,
        steps=tuple(map(_freeze_step, policy.steps)),
        counts="static",
        evidence=(),
        provenance={"frozen from": policy.schedule_hash, **policy.provenance},
    )


def _freeze_step(step: Step) -> Step:
    if isinstance(step, Threshold):
        return Prune(step.block, step.keep, step.score, at=step.at)
    return step
