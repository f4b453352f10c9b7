"""A schedule carried over: by ratio to another geometry, at the same sites to another latency."""

from collections.abc import Callable
from dataclasses import replace

from tokensearch.policy.checks import kept_range
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import Policy
from tokensearch.policy.steps import Step

# In which steps of one block act.
_ORDER = (
    "prune",
    "pool",
    "prune_or_pool",
    "merger",
    "threshold",
)
HALVINGS = 12  # of the exponent: it is then known to a thousandth
LEAST, MOST = 0.05, 8.0  # exponents: as good as nothing is dropped, one token of 196 is left


def rescaled(
    steps: tuple[Step, ...], model: ModelSpec, *, blocks: int, patch_tokens: int
) -> tuple[Step, ...]:
    """Return `steps`, made for `blocks` and `patch_tokens`, with their ratios, for `model`.

    A step stays at its share of the depth, and leaves its share of the tokens that enter block 0,
    as far as its operator can. Of the prunes that land in one block the last stays, and of
    the pools.
    """
    landed: dict[tuple[int, int], Step] = {}
    for step in steps:
        block = min(_ratio(step.block, model.blocks, blocks), model.blocks - 1)
        keep = _ratio(step.keep, model.patch_tokens, patch_tokens)
        landed[block, _ORDER.index(step.op)] = replace(step, block=block, keep=keep)
    return _feasible(tuple(landed[place] for place in sorted(landed)), model.patch_tokens)


def _ratio(value: int, new: int, old: int) -> int:
    """Return `value` times new / old, rounded; halves go up, so that they spread evenly."""
    return (2 * value * new + old) // (2 * old)


def _feasible(steps: tuple[Step, ...], left: int) -> tuple[Step, ...]:
    """Return the steps with counts that their operators can leave."""
    possible: list[Step] = []
    for step in steps:
        least, most = kept_range(step, left)
        left = min(max(step.keep, least), most)
        possible.append(replace(step, keep=left))
    return tuple(possible)


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
