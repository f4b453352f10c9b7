"""What a search was asked to do. A run folder goes on only with equal settings."""

from dataclasses import asdict, dataclass
from typing import Any

from tokensearch.policy import Target


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what is searched; a budget only decides for how long."""

    model: str  # resolved name
    checkpoint: str | None
    data: str | None
    target: Target
    device: str
    dtype: str
    batch: int
    resolution: int
    space: str
    space_digest: str
    sampler: str
    seed: int
    backend: str = "eager"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as run.json holds them."""
        return {**asdict(self), "target": self.target.text}


@dataclass(frozen=True, slots=True)
class Limits:
    """When the search stops proposing; what was proposed is always finished."""

    trials: int  # policies evaluated, presets and controls counted in
    seconds: float  # of searching; confirming and quoting come on top
