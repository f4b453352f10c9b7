"""What `evaluate --json` prints: one policy beside the baseline, as a record.

The fields are those of the document; which policy, where, on what images, and what came of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tokensearch.records.measurements import OMIT_NONE, Cell, Comparison, PairedAccuracy, Score


@dataclass(frozen=True, slots=True)
class CountSpread:
    """Patch tokens that one block hands on, over images."""

    block: int
    mean: float
    p50: float
    p90: float
    max: int


@dataclass(frozen=True, slots=True)
class PolicyEvaluation:
    """One policy's accuracy and latency beside the baseline's."""

    WRITTEN: ClassVar = (
        *("policy", "provenance", "schedule_hash"),
        *("patch_tokens_per_block", "patch_tokens_after_block", "cell", "data"),
        *("accuracy", "paired", "patch_tokens_by_image", "comparison"),
    )
    policy: str  # as it was named: a file, or a preset
    provenance: Mapping[str, Any] = field(hash=False)
    schedule_hash: str
    patch_tokens_per_block: tuple[int, ...]
    patch_tokens_after_block: tuple[int, ...]
    cell: Cell
    data: str  # name of the images
    accuracy: Score  # on `report`
    paired: PairedAccuracy  # with the baseline, on the same images
    comparison: Comparison  # with the baseline
    # Of a policy that keeps other counts for other images, a spread per block.
    patch_tokens_by_image: tuple[CountSpread, ...] | None = field(default=None, metadata=OMIT_NONE)
