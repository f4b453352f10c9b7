"""How many tokens the images of a split keep, where thresholds decide."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class CountSpread:
    """Patch tokens that one block hands on, over images."""

    block: int
    mean: float
    p50: float
    p90: float
    max: int


def spread_of_counts(counts: Tensor) -> tuple[CountSpread, ...]:
    """Return the spread behind every block.

    counts  (images, blocks) as `runtime.count_tokens` gives them
    """
    return tuple(
        CountSpread(
            block,
            column.mean().item(),
            column.quantile(0.5).item(),
            column.quantile(0.9).item(),
            int(column.max()),
        )
        for block, column in enumerate(counts.double().unbind(dim=1))
    )
