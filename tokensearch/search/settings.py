"""What a search run is asked for: its settings, samplers and budget."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from tokensearch.policy import Objective, Target, parse_target
from tokensearch.records.measurements import Backend

SamplerName = Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)


def optuna_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return a sampler of Optuna by its name here."""
    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "tpe-multivariate": lambda: TPESampler(seed=seed, multivariate=True),
        "gp": lambda: GPSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
    }
    return made[name]()


@dataclass(frozen=True, slots=True)
class SearchSettings:
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
    sampler: SamplerName
    seed: int
    objective: Objective = "kl"
    backend: Backend = "eager"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as run.json holds them."""
        return {**asdict(self), "target": self.target.text}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "SearchSettings":
        """Return the settings that a checked run.json holds, without those of a newer version."""
        known = {item.name: written[item.name] for item in fields(cls) if item.name in written}
        return cls(**{**known, "target": parse_target(written["target"])})


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """When the search stops proposing; what was proposed is always finished."""

    trials: int | None  # policies evaluated, presets and controls counted in; None: no limit
    seconds: float | None  # of searching; confirming and quoting come on top

    def spent(self, *, trials: int, seconds: float) -> float:
        """Share of the budget that is used up, by whichever limit is nearer."""
        shares = [0.0 if self.trials is None else trials / self.trials]
        shares.append(0.0 if self.seconds is None else seconds / self.seconds)
        return max(shares)

    @property
    def unit(self) -> str:
        """What `progress` counts in."""
        return "trials" if self.trials is not None or self.seconds is None else "s"

    def progress(self, *, trials: int, seconds: float) -> tuple[int, int]:
        """How far a search is, of how much: of trials where they are limited, else of seconds."""
        if self.unit == "trials":
            return trials, max(trials, self.trials or 0)
        assert self.seconds is not None  # by the unit
        most = max(1, round(self.seconds))
        return min(round(seconds), most), most
