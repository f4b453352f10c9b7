"""What reports call phases, the groups of blocks that they show, and profiles read from files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokensearch.documents import read_object
from tokensearch.errors import MeasurementError, RunError
from tokensearch.records.profile import PHASES, Phase, Profile
from tokensearch.records.profile_file import MAX_PROFILE_BYTES, profile_from_json

PARTS = 3  # groups of blocks: early, middle, late
PHASE_NAMES: Mapping[Phase, str] = {
    **{phase: phase for phase in PHASES},
    "mlp": "MLP",
    "bias": "size bias",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring blocks, or what is outside the blocks."""

    name: str
    blocks: Collection[int | None]

    def ms(self, profile: Profile, phase: Phase) -> float:
        """Time of one phase in the group."""
        return profile.phase_ms(phase, self.blocks)


def groups(blocks: int) -> tuple[Group, ...]:
    """Split the blocks into thirds.

    >>> [group.name for group in groups(12)]
    ['outside blocks', 'blocks 0-3', 'blocks 4-7', 'blocks 8-11']
    """
    ends = [part * blocks // PARTS for part in range(PARTS + 1)]
    spans = [range(ends[part], ends[part + 1]) for part in range(PARTS)]
    return (
        Group("outside blocks", (None,)),
        *(Group(f"blocks {span.start}-{span.stop - 1}", span) for span in spans if span),
    )


def read_profile(path: Path) -> Profile | None:
    """Read a profile's file, None where there is none; RunError when it cannot be read as one."""
    if not path.exists():
        return None
    try:
        return profile_from_json(
            read_object(path, what="a profile", error=MeasurementError, most=MAX_PROFILE_BYTES)
        )
    except MeasurementError as error:
        raise RunError(f"{path} cannot be read as a profile: {error}") from error
