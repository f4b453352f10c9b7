"""Schedules of a given shape, made as fast as wanted: more or fewer tokens at the same sites."""

from collections.abc import Callable
from dataclasses import replace

from tokensearch.policy import Policy, Step
from tokensearch.policy.checks import kept_range

HALVINGS = 12  # of the exponent: it is then known to a thousandth
LEAST, MOST = 0.05, 8.0  # exponents: as good as nothing is dropped, one token of 196 is left


def match_latency(shape: Policy, wanted: float, ratio: Callable[[Policy], float]) -> Policy:
    """Return `shape` with as many tokens everywhere as take it nearest below `wanted`."""
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        if ratio(scale_counts(shape, middle)) > wanted:
            low = middle
        else:
            high = middle
    return scale_counts(shape, high)


def scale_counts(shape: Policy, exponent: float) -> Policy:
    """Raise the share of tokens left after every step to a power: below 1 more are left.

    Of a pool that cannot merge so many, as few as it can leave.
    """
    tokens = left = shape.model.patch_tokens
    steps: list[Step] = []
    for step in shape.steps:
        least, most = kept_range(step, left)
        keep = round(tokens * (step.keep / tokens) ** exponent)
        changed = replace(step, keep=min(most, max(least, keep)))
        left = changed.keep
        steps.append(changed)
    return replace(shape, steps=tuple(steps), evidence=())
