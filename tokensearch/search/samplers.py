"""Who proposes: our local search by default, or one of Optuna's."""

from collections.abc import Callable
from typing import Literal, get_args

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

SamplerName = Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"]
SAMPLERS: tuple[str, ...] = get_args(SamplerName)


def optunas(name: SamplerName, seed: int) -> BaseSampler:
    """Return a sampler of Optuna by its name here."""
    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "tpe-multivariate": lambda: TPESampler(seed=seed, multivariate=True),
        "gp": lambda: GPSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
    }
    return made[name]()
