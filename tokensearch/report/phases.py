"""Where the time of a pass goes, by phase and by thirds of the model's blocks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokensearch.errors import RunError
from tokensearch.records import PHASES, Phase, PhaseTime

PARTS = 3  # groups of blocks: early, middle, late
PHASE_NAMES: Mapping[Phase, str] = {
    "attention": "attention",
    "mlp": "MLP",
    "bias": "size bias",
    "scoring": "scoring",
    "selecting": "selecting",
    "gathering": "gathering",
    "merging": "merging",
    "other": "other",
}
REDUCING: tuple[Phase, ...] = ("bias", "scoring", "selecting", "gathering", "merging")


@dataclass(frozen=True, slots=True)
class Times:
    """The part of a profile that reports show."""

    phases: tuple[PhaseTime, ...]
    profiled_ms: float
    clock_ms: float
    unexplained_ms: float

    @property
    def unexplained_share(self) -> float:
        """Share of the profiled pass that belongs to no phase."""
        return self.unexplained_ms / self.profiled_ms

    @property
    def overhead_ms(self) -> float:
        """Time spent on reducing tokens itself."""
        return sum(self.phase_ms(phase) for phase in REDUCING)

    def phase_ms(self, phase: Phase, group: "Group | None" = None) -> float:
        """Time of one phase, in one group of blocks or in all."""
        return sum(
            item.ms
            for item in self.phases
            if item.phase == phase and (group is None or group.holds(item.block))
        )

    def group_ms(self, group: "Group") -> float:
        """Time of one group of blocks, all phases together."""
        return sum(self.phase_ms(phase, group) for phase in PHASES)


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring blocks, or what is outside the blocks."""

    name: str
    blocks: range | None  # None: stem and head

    def holds(self, block: int | None) -> bool:
        """Whether a block belongs to the group."""
        return block is None if self.blocks is None else block in self.blocks


def groups(blocks: int) -> tuple[Group, ...]:
    """Split the blocks into thirds.

    >>> [group.name for group in groups(12)]
    ['stem and head', 'blocks 0-3', 'blocks 4-7', 'blocks 8-11']
    """
    ends = [part * blocks // PARTS for part in range(PARTS + 1)]
    spans = [range(ends[part], ends[part + 1]) for part in range(PARTS)]
    return (
        Group("stem and head", None),
        *(Group(f"blocks {span.start}-{span.stop - 1}", span) for span in spans if span),
    )


def read_times(path: Path) -> Times | None:
    """Read a profile's file, None where there is none; RunError when it cannot be read as one."""
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Times(
            phases=tuple(PhaseTime(**item) for item in document["phases"]),
            profiled_ms=float(document["profiled_ms"]),
            clock_ms=float(document["clock_ms"]),
            unexplained_ms=float(document["unexplained_ms"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read as a profile: {error}") from error
