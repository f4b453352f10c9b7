"""What a search run is asked for: its settings and its budget."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from tokensearch.policy import Goal, Objective, Target
from tokensearch.records.measurements import OMIT_NONE, Backend

SamplerName = Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Everything that decides what is searched; a budget only decides for how long."""

    model: str  # resolved name
    checkpoint: str | None
    data: str | None
    target: Target | None  # None where only a loss is bounded
    device: str
    dtype: str
    batch: int
    resolution: int
    space: str
    space_digest: str
    sampler: SamplerName
    seed: int
    objective: Objective = "kl"
    backend: Backend = "eager"
    max_drop: float | None = field(default=None, metadata=OMIT_NONE)  # share of right answers
    max_divergence: float | None = field(default=None, metadata=OMIT_NONE)  # nats, or 1 - cosine
    columns: int | None = field(default=None, metadata=OMIT_NONE)  # where images are not square

    @property
    def goal(self) -> Goal:
        """What is asked of the answer."""
        return Goal(self.target, self.max_drop, self.max_divergence)


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """When a run stops proposing; what was proposed is always finished."""

    trials: int | None  # policies evaluated, presets and controls counted in; None: no limit
    seconds: float | None  # of the whole run

    def spent(self, *, trials: int, seconds: float) -> float:
        """Share of the budget that is used up, by whichever limit is nearer."""
        shares = [0.0 if self.trials is None else trials / self.trials]
        shares.append(0.0 if self.seconds is None else seconds / self.seconds)
        return max(shares)

    @property
    def unit(self) -> str:
        """What `progress` counts in."""
        return "trials" if self.trials is not None or self.seconds is None else "s"

    def progress(self, *, trials: int, seconds: float, before: float = 0.0) -> tuple[int, int]:
        """How far a search is, of how much: of trials where they are limited, else of seconds.

        seconds  of the run
        before   of these went by before the search began, and are not counted
        """
        if self.unit == "trials":
            return trials, max(trials, self.trials or 0)
        assert self.seconds is not None  # by the unit
        most = max(1, round(self.seconds - before))
        return min(round(seconds - before), most), most
