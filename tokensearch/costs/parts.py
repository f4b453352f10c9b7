"""The parts that a pass under a policy is made of: what is measured apart, and added up.

Counts are patch tokens. Two parts with the same name and counts cost the same in every block, but
for a factor per block that the sweep looks for.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tokensearch.policy import (
    Merger,
    Policy,
    Pool,
    Prune,
    PruneOrPool,
    Step,
    Threshold,
    changes_sizes,
)

ATTENTION, SIZED_ATTENTION, MLP = "attention", "sized attention", "mlp"
CURVES = (ATTENTION, SIZED_ATTENTION, MLP)  # measured count by count; all else by few terms
TAIL, SIZED_TAIL = "prefix-only attention", "sized prefix-only attention"
STEM, HEAD, OTHER = "stem", "head", "other"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a pass."""

    name: str
    block: int | None  # None outside the blocks
    n_in: int  # patch tokens that enter it
    n_out: int  # ... and that leave it

    @property
    def half(self) -> str:
        """What part of its block it belongs to: "attention", "mlp", or "reducing"."""
        if self.name in {ATTENTION, SIZED_ATTENTION, TAIL, SIZED_TAIL}:
            return "attention"
        return "mlp" if self.name == MLP else "reducing"


def operator(step: Step) -> str:
    """Name the price of a step, its score left out: that is a part of its own."""
    match step:
        case Prune():
            return f"prune {step.rest}"
        case Pool():
            return f"pool {step.match}"
        case PruneOrPool():
            return "prune_or_pool"
        case Merger():
            return "merger"
        case Threshold():
            return "threshold"


def scoring(score: str) -> str:
    """Name the price of a score."""
    return f"score {score}"


def parts_of(policy: Policy, *, floor: bool = False) -> Iterator[Part]:
    """Yield every part of a pass; with `floor`, tokens are cut off at no price.

    Attention is *sized* once a step has made tokens of several patches under proportional
    attention: log(size) is then added to its logits, and kernels are others.
    """
    yield Part(STEM, None, policy.model.patch_tokens, policy.model.patch_tokens)
    yield Part(OTHER, None, 0, 0)
    left, sized = policy.model.patch_tokens, False
    counts = zip(policy.patch_tokens_per_block, policy.patch_tokens_after_block, strict=True)
    for block, (at_mlp, after) in enumerate(counts):
        prefix_only = policy.last_block == "prefix_only" and block == policy.model.blocks - 1
        yield Part(_attention(sized=sized, prefix_only=prefix_only), block, left, left)
        steps = () if floor else policy.steps_of(block)
        yield from _site(steps, block, left)
        sized = sized or (policy.proportional_attention and any(map(changes_sizes, steps)))
        yield Part(MLP, block, at_mlp, at_mlp)
        left = after
    yield Part(HEAD, None, left, left)


def _attention(*, sized: bool, prefix_only: bool) -> str:
    if prefix_only:
        return SIZED_TAIL if sized else TAIL
    return SIZED_ATTENTION if sized else ATTENTION


def _site(steps: tuple[Step, ...], block: int, left: int) -> Iterator[Part]:
    """A score that two steps of a block share is computed once, of all tokens that entered."""
    for score in dict.fromkeys(step.score for step in steps if step.score is not None):
        yield Part(scoring(score), block, left, left)
    for step in steps:
        yield Part(operator(step), block, left, step.keep)
        left = step.keep
