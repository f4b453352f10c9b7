"""Real time to 98 % of the reference: the default search, and Optuna's TPE by itself."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import optuna

from tests.bench.searching import WORST, Bench, Quiet, settings, worth_of
from tokensearch.accuracy.store import PredictionStore
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.front import Point, hypervolume
from tokensearch.policy.file import policy_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SearchBudget
from tokensearch.runtime import describe
from tokensearch.search import SearchRun, load_space
from tokensearch.search.early_stopping import TRIAL_BUDGET
from tokensearch.search.latency_model import forecast_from_table
from tokensearch.search.time_plan import TimePlan

WANTED = 0.98
MOST_SECONDS = 240.0  # for the default search


class Watch(Quiet):
    """Remembers when each trial ended."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.searching = False
        self.ended: list[float] = []  # of every trial

    def stage(self, title: str, *, unit: str = "") -> None:
        """Note when the trials begin."""
        self.searching = title.startswith("searching")

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Note the time of a trial's end."""
        if self.searching:
            self.ended.append(time.monotonic() - self.began)


@dataclass(frozen=True, slots=True)
class Plain:
    """What TPE reached by itself."""

    share: float  # of the reference's hypervolume
    seconds: float
    trials: int
    reached: float | None  # seconds to 98 %


def default_seconds(bench: Bench, seed: int) -> float | None:
    """Seconds, sweep and all included, after which the default search has 98 %; None: never."""
    watch = Watch()
    session = SearchRun(
        bench.model,
        bench.splits,
        load_space("default"),
        settings("local", seed),
        SearchBudget(None, MOST_SECONDS),
        RunFolder(Path(tempfile.mkdtemp(prefix="tokensearch-bench-"))),
        watch,
        "python -m tests.bench search",
        PredictionStore(None),
    )
    session.folder.create()
    search = session.searched(session.evaluator(), TimePlan())
    ratio, points = forecast_from_table(bench.table).ratio, list[Point]()
    for trial in search.trials:
        if trial.state == "complete":
            policy = policy_from_json(trial.policy)
            points.append(Point(worth_of(trial.accuracy.kl), ratio(policy)))
            share = hypervolume(points, reference=WORST) / bench.reference_volume
            if share >= WANTED:
                return watch.ended[trial.number]
    return None


def plain_share(bench: Bench, seconds: float, *, seed: int) -> Plain:
    """Let Optuna's TPE propose, and measure every proposal whole: all images, and real time."""
    evaluator: PolicyEvaluator = bench.session("tpe", seed).evaluator()
    plain = PolicyEvaluator(evaluator.model, bench.splits, evaluator.cell, seed, cache_gb=0.0)
    space, model = load_space("default"), describe(bench.model)
    ratio, points = forecast_from_table(bench.table).ratio, list[Point]()
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed)
    )
    began, reached, share = time.monotonic(), None, 0.0
    while time.monotonic() - began < seconds:
        trial = study.ask()
        policy = space.suggest(trial, model)
        kl = plain.score(policy, "search").accuracy.kl
        timed = plain.time(policy, TRIAL_BUDGET).ratio
        study.tell(trial, [worth_of(kl), timed])
        points.append(Point(worth_of(kl), ratio(policy)))
        share = hypervolume(points, reference=WORST) / bench.reference_volume
        if reached is None and share >= WANTED:
            reached = time.monotonic() - began
    return Plain(share, time.monotonic() - began, len(points), reached)
