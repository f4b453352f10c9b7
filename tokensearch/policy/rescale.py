"""A schedule made for one geometry, carried over to another by ratio."""

from dataclasses import replace

from tokensearch.policy.checks import kept_range
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.steps import Step

# In which steps of one block act.
_ORDER = (
    "prune",
    "pool",
    "prune_or_pool",
    "merger",
    "threshold",
)


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
