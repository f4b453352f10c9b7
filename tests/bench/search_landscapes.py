"""LocalSampler and Optuna's samplers on landscapes whose truth is known, from an empty study.

    python -m tests.bench search --parts landscapes [--store search-landscapes]

Every sampler is used as any Optuna user would: a plain study, an objective, the baseline enqueued.
Scored is the true hypervolume of what was evaluated, as a share of the best known. Optuna's own
samplers use no forecast. CMA-ES has one objective and numbers alone, so it does not apply.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from math import log10
from statistics import mean
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from tests.bench.landscapes import LANDSCAPES, LEAST, best_volume, volume_of
from tokensearch.costs.forecast import Forecast
from tokensearch.policy import Policy
from tokensearch.search import LocalSampler
from tokensearch.search.space.suggest import encode

SAMPLERS = ("local", "tpe", "tpe-multivariate", "nsga2", "random")
ERRORS = (0.0, 0.03)  # of the forecast
FIRST_SEED = 100  # none was used while samplers were tuned
POPULATION = 20  # of NSGA-II: six generations within the budget
LEAST_ERROR = 0.005  # that a forecast is said to have, of its latencies
INTERVAL = 1.96  # half-width in standard errors


@dataclass(frozen=True)
class Contest:
    """Some runs of one sampler on one landscape."""

    landscape: str
    sampler: str
    forecast_error: float | None  # None: it uses no forecast
    shares: tuple[float, ...]  # of the best hypervolume known, by seed


@dataclass(frozen=True)
class Entry:
    """One sampler on one landscape, by its number."""

    number: int
    sampler: str
    error: float  # of the forecast, which the local sampler alone uses


def compare(pool: Executor, seeds: int, budget: int, *, gp: bool) -> Iterator[Contest]:
    """Yield the result of every sampler on every landscape; with `gp`, Optuna's as well."""
    samplers = (*SAMPLERS, "gp") if gp else SAMPLERS
    for number, landscape in enumerate(LANDSCAPES):
        entries = [
            Entry(number, sampler, error)
            for sampler in samplers
            for error in (ERRORS if sampler == "local" else (0.0,))
        ]
        best = pool.submit(best_of, number)
        runs = {
            entry: [pool.submit(run, entry, FIRST_SEED + seed, budget) for seed in range(seeds)]
            for entry in entries
        }
        volumes = {entry: [one.result() for one in futures] for entry, futures in runs.items()}
        most = max(best.result(), *map(max, volumes.values()))
        for entry, reached in volumes.items():
            error = entry.error if entry.sampler == "local" else None
            shares = tuple(round(one / most, 4) for one in reached)
            yield Contest(landscape.name, entry.sampler, error, shares)


def best_of(number: int) -> float:
    """Return the best hypervolume known of a landscape, in a process of the pool."""
    return best_volume(LANDSCAPES[number])


def run(entry: Entry, seed: int, budget: int) -> float:
    """Search once, in a process of the pool; return the true hypervolume of what was evaluated."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape, evaluated = LANDSCAPES[entry.number], list[Policy]()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        policy = landscape.space.suggest(trial, landscape.model)
        evaluated.append(policy)
        loss, ratio = landscape.loss(policy), landscape.timed(policy, seed)
        trial.set_user_attr("loss", loss)
        if policy.reduces:
            reach = INTERVAL * landscape.timing_noise * ratio
            trial.set_user_attr("latency", ratio)
            trial.set_user_attr("latency_low", ratio - reach)
            trial.set_user_attr("latency_high", ratio + reach)
        return -log10(loss + LEAST), ratio

    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(entry, seed)
    )
    space, model = landscape.space, landscape.model
    study.enqueue_trial(encode(space.nearest(Policy(model), model), space.dimensions(model)))
    study.optimize(objective, n_trials=budget)
    return volume_of([landscape.point(policy) for policy in evaluated])


def make_sampler(entry: Entry, seed: int) -> BaseSampler:
    """Return a sampler with the settings that it is compared with."""
    landscape, error = LANDSCAPES[entry.number], entry.error
    match entry.sampler:
        case "local":
            forecast = Forecast(partial(landscape.predicted, error=error), max(LEAST_ERROR, error))
            return LocalSampler(landscape.space, landscape.model, forecast=forecast, seed=seed)
        case "tpe":
            return TPESampler(seed=seed)
        case "tpe-multivariate":
            return TPESampler(seed=seed, multivariate=True)
        case "gp":
            return GPSampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed, population_size=POPULATION)
        case _:
            return RandomSampler(seed=seed)


def summarise(contests: Sequence[Contest]) -> list[dict[str, Any]]:
    """Return the results as files hold them."""
    return [{**asdict(one), "mean": round(mean(one.shares), 4)} for one in contests]


def line(contest: Contest) -> str:
    """One result as people read it."""
    of = "" if contest.forecast_error is None else f", forecast off by {contest.forecast_error:.0%}"
    shares = " ".join(f"{100 * share:.1f}" for share in contest.shares)
    return (
        f"{contest.landscape:20} {100 * mean(contest.shares):5.1f} % of the best known by "
        f"{contest.sampler}{of} ({shares})"
    )
