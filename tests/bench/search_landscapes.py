"""LocalSampler and Optuna's samplers on landscapes whose truth is known, from an empty study.

    python -m tests.bench search --parts landscapes [--store search-landscapes]

Every sampler is used as any Optuna user would: a plain study, an objective, the baseline enqueued.
Scored is the true hypervolume of what was evaluated, as a share of the best known. Optuna's own
samplers use no forecast. Token counts and blocks are integers to all of them, so that TPE too knows
which are near. NSGA-II has a population of which six generations fit the budget. CMA-ES has one
objective: a study for each of three weights of latency, a third of the budget each; what is no
number it draws at random. Optuna's Gaussian process is stopped after so much processor time; how
many evaluations that were is in the result.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from math import inf, log10
from statistics import mean
from typing import Any

import optuna
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)

from tests.bench.landscapes import LANDSCAPES, LEAST, Landscape, best_volume, volume_of
from tokensearch.costs.forecast import Forecast
from tokensearch.policy import Policy
from tokensearch.search import LocalSampler
from tokensearch.search.sampler.storage import DIRECTIONS
from tokensearch.search.space.suggest import encode

SAMPLERS = ("local", "tpe", "tpe-multivariate", "nsga2", "random", "gp", "cma-es")
# Digits of loss that the whole latency of the baseline is worth, to a sampler of one objective:
# fronts of these landscapes lie between one digit at 0.3x and three at 0.8x.
WEIGHTS = (2.0, 4.0, 8.0)
# Processor time of a run of Optuna's Gaussian process: three times LocalSampler's. It needs
# minutes for 120 evaluations, since the improvement of hypervolume is an average over 128 draws,
# asked for every choice of every parameter in turn, from ten starting points.
GP_SECONDS = 60.0
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
    evaluations: tuple[int, ...]  # by seed


@dataclass(frozen=True)
class Entry:
    """One sampler on one landscape, by its number."""

    number: int
    sampler: str
    error: float  # of the forecast, which the local sampler alone uses


@dataclass(frozen=True)
class Reached:
    """What one run came to."""

    volume: float  # true hypervolume of what was evaluated
    evaluations: int


def compare(pool: Executor, seeds: int, budget: int, samplers: Sequence[str]) -> Iterator[Contest]:
    """Yield the result of every sampler on every landscape."""
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
        reached = {entry: [one.result() for one in futures] for entry, futures in runs.items()}
        most = max(best.result(), *(one.volume for ends in reached.values() for one in ends))
        for entry, ends in reached.items():
            error = entry.error if entry.sampler == "local" else None
            shares = tuple(round(one.volume / most, 4) for one in ends)
            counts = tuple(one.evaluations for one in ends)
            yield Contest(landscape.name, entry.sampler, error, shares, counts)


def runnable_samplers() -> tuple[str, ...]:
    """Return the samplers that can run here: CMA-ES needs a package of its own."""
    return tuple(one for one in SAMPLERS if one != "cma-es" or find_spec("cmaes") is not None)


def best_of(number: int) -> float:
    """Return the best hypervolume known of a landscape, in a process of the pool."""
    return best_volume(LANDSCAPES[number])


def run(entry: Entry, seed: int, budget: int) -> Reached:
    """Search once, in a process of the pool."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape, evaluated = LANDSCAPES[entry.number], list[Policy]()
    evaluate = make_objective(landscape, seed, evaluated)
    sampler = partial(make_sampler, entry.sampler, landscape, seed, error=entry.error)
    if entry.sampler == "cma-es":
        for weight in WEIGHTS:
            study = optuna.create_study(direction="maximize", sampler=sampler())
            each = budget // len(WEIGHTS)
            search(study, landscape, partial(weigh, evaluate, weight), budget=each)
    else:
        study = optuna.create_study(directions=DIRECTIONS, sampler=sampler())
        seconds = GP_SECONDS if entry.sampler == "gp" else inf
        search(study, landscape, evaluate, budget=budget, seconds=seconds)
    return Reached(volume_of([landscape.point(policy) for policy in evaluated]), len(evaluated))


def make_objective(
    landscape: Landscape, seed: int, evaluated: list[Policy]
) -> Callable[[optuna.Trial], tuple[float, float]]:
    """Return what gives digits of loss and latency of a trial, and notes its schedule."""

    def evaluate(trial: optuna.Trial) -> tuple[float, float]:
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

    return evaluate


def weigh(
    evaluate: Callable[[optuna.Trial], tuple[float, float]], weight: float, trial: optuna.Trial
) -> float:
    """Return digits of loss and latency as one objective."""
    digits, ratio = evaluate(trial)
    return digits - weight * ratio


def search(
    study: optuna.Study,
    landscape: Landscape,
    objective: Callable[[optuna.Trial], Any],
    *,
    budget: int,
    seconds: float = inf,
) -> None:
    """Evaluate the baseline and what the sampler proposes, for so much processor time at most."""
    space, model, began = landscape.space, landscape.model, time.process_time()

    def stop_late(study: optuna.Study, _: object) -> None:
        if time.process_time() - began > seconds:
            study.stop()

    study.enqueue_trial(encode(space.nearest(Policy(model), model), space.dimensions(model)))
    study.optimize(objective, n_trials=budget, callbacks=[stop_late])


def make_sampler(name: str, landscape: Landscape, seed: int, *, error: float = 0.0) -> BaseSampler:
    """Return a sampler with the settings that it is compared with."""
    match name:
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
        case "cma-es":
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case _:
            return RandomSampler(seed=seed)


def summarise(contests: Sequence[Contest]) -> list[dict[str, Any]]:
    """Return the results as files hold them."""
    return [{**asdict(one), "mean": round(mean(one.shares), 4)} for one in contests]


def line(contest: Contest) -> str:
    """One result as people read it."""
    of = "" if contest.forecast_error is None else f", forecast off by {contest.forecast_error:.0%}"
    shares = " ".join(f"{100 * share:.1f}" for share in contest.shares)
    counts = " ".join(map(str, contest.evaluations))
    return (
        f"{contest.landscape:20} {100 * mean(contest.shares):5.1f} % of the best known by "
        f"{contest.sampler}{of} ({shares}) after {counts} evaluations"
    )
