"""The search of the demo model as a benchmark: latencies from one table, costs in images."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log10
from pathlib import Path

from torch import nn

from tokensearch.accuracy.store import PredictionStore
from tokensearch.costs import CostTable, costs_from_json
from tokensearch.costs.forecast import Forecast
from tokensearch.data.bundled import bundled_splits
from tokensearch.data.splits import Sizes, Splits
from tokensearch.demo.model import WEIGHTS
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.front import Point, hypervolume
from tokensearch.measure import TimingBudget
from tokensearch.models import load_model
from tokensearch.policy import Policy, parse_target
from tokensearch.records.measurements import Comparison, Latency, Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SamplerName, SearchBudget, SearchSettings
from tokensearch.search import SearchRun, load_space
from tokensearch.search.latency_model import forecast_from_table
from tokensearch.search.time_plan import TimePlan

IMAGES = Sizes(128, 512, 2000)
BATCH = 8
ENCODINGS = ("default", "per_block")  # spaces of the same freedom
REFERENCE = Path(__file__).with_name("reference") / "search.json"
# The worth of a policy is the number of digits of its divergence, down to a thousandth of a nat:
# a front between 0.3 and 0.003 nats is otherwise all at its fast end. Worst: one nat, baseline.
LEAST_NATS, WORST = 1e-3, Point(accuracy=0.0, latency=1.0)


@dataclass(frozen=True)
class Limit(SearchBudget):
    """Ends a search by what it has asked of the model."""

    used: Callable[[], float] = lambda: 0.0  # full evaluations
    budget: float = 1.0

    def spent(self, *, trials: int, seconds: float) -> float:
        """Share of the budget."""
        return max(1e-9, self.used() / self.budget)


class Quiet:
    """Watches and says nothing."""

    def stage(self, title: str, *, unit: str = "") -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Say nothing."""

    def caution(self, text: str) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Tabled(PolicyEvaluator):
    """Measures accuracy, and looks latency up."""

    ratio: Callable[[Policy], float] = lambda policy: 1.0

    def time(self, policy: Policy, budget: TimingBudget, **_: object) -> Comparison:
        """Return what the table says, as if it had been timed without noise."""
        ratio = self.ratio(policy) if policy.reduces else 1.0
        baseline, candidate = Latency((10.0,) * 12, 1), Latency((10.0 * ratio,) * 12, 1)
        return Comparison(
            baseline, candidate, ratio, ratio, ratio, 0.95, "faster" if ratio < 1 else "same"
        )


@dataclass(frozen=True)
class TabledSession(SearchRun):
    """A session whose latencies come from a table, and whose limit is one of images."""

    table: CostTable | None = None
    budget: float = 1.0

    def evaluator(self) -> PolicyEvaluator:
        """Return what looks latencies up."""
        return Tabled(**vars(super().evaluator()), ratio=self.forecast_of_table.ratio)

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        """Return the table's own predictions, which are exact here."""
        return self.forecast_of_table

    @property
    def forecast_of_table(self) -> Forecast:
        """The table as what predicts."""
        assert self.table is not None
        return forecast_from_table(self.table)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a search had found after how many full evaluations."""

    points: tuple[tuple[float, Point], ...]  # cost when found; worth and ratio
    trials: int

    def volume_at(self, cost: float) -> float:
        """Hypervolume of all that was found by then."""
        return hypervolume([point for at, point in self.points if at <= cost], reference=WORST)

    def cost_of(self, volume: float) -> float | None:
        """Full evaluations after which a hypervolume was reached; None if it never was."""
        for at in sorted({cost for cost, _ in self.points}):
            if self.volume_at(at) >= volume:
                return at
        return None


def hash_weights() -> str:
    """Return the SHA-256 of the bundled model's file."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def _doubt(weights: str) -> str:
    """Say whether a reference is of other weights than those bundled: shares of it then mislead."""
    if weights == hash_weights():
        return ""
    return "; OF OTHER WEIGHTS than those bundled, so make it anew with --make-reference"


def worth_of(kl: float) -> float:
    """Digits of a divergence in nats, as `WORST` counts them."""
    return -log10(kl + LEAST_NATS)


def curve_of(trials: Sequence[Trial], images: int) -> Curve:
    """Return the curve of a search: only policies that saw every image count as found."""
    points, cost = [], 0.0
    for trial in trials:
        if trial.origin != "none":
            cost += trial.accuracy.images / images
        if trial.state == "complete":
            points.append((cost, Point(worth_of(trial.accuracy.kl), trial.ratio)))
    return Curve(tuple(points), len(trials))


@dataclass(frozen=True)
class Bench:
    """The demo model, its images, and the reference."""

    model: nn.Module
    splits: Splits
    table: CostTable
    store: PredictionStore
    how: str = ""
    reference: tuple[Point, ...] = ()

    @classmethod
    def load(cls, answers: Path | None) -> "Bench":
        """Read the reference; answers are kept in `answers`, or for this process alone."""
        document = json.loads(REFERENCE.read_text())
        return replace(
            cls.of(costs_from_json(document["costs"]), answers),
            how=document["how"] + _doubt(document["weights"]),
            reference=tuple(Point(worth_of(kl), ratio) for ratio, kl in document["front"]),
        )

    @classmethod
    def of(cls, table: CostTable, answers: Path | None) -> "Bench":
        """Return the benchmark without a reference."""
        loaded = load_model("demo")
        return cls(
            loaded.module,
            bundled_splits(data_config=dict(loaded.data_config), sizes=IMAGES),
            table,
            PredictionStore(answers or Path(tempfile.mkdtemp()) / "answers.db"),
        )

    @property
    def reference_volume(self) -> float:
        """Hypervolume of the reference front."""
        return hypervolume(self.reference, reference=WORST)

    def searched(
        self, sampler: SamplerName, seed: int, budget: float, *, space: str = "default"
    ) -> Curve:
        """Search to a budget of full evaluations, latencies looked up."""
        trials = self.trials(sampler, seed, budget, space=space)
        return curve_of(trials, len(self.splits.search))

    def trials(
        self, sampler: SamplerName, seed: int, budget: float, *, space: str = "default"
    ) -> tuple[Trial, ...]:
        """Return what such a search tried."""
        session = self.session(sampler, seed, space=space, budget=budget)
        session.folder.create()
        evaluator = session.evaluator()
        blocks = evaluator.predictions.count_chunks("search")
        limits = Limit(
            None, None, lambda: evaluator.predictions.chunks_asked("search") / blocks, budget
        )
        return replace(session, limits=limits).searched(evaluator, TimePlan()).trials

    def session(
        self, sampler: SamplerName, seed: int, *, space: str = "default", budget: float = 1.0
    ) -> TabledSession:
        """Return a session of the whole front: its target is the baseline's latency."""
        return TabledSession(
            self.model,
            self.splits,
            load_space(space),
            settings(sampler, seed, space),
            SearchBudget(None, None),
            RunFolder(Path(tempfile.mkdtemp(prefix="tokensearch-bench-"))),
            Quiet(),
            "python -m tests.bench search",
            self.store,
            table=self.table,
            budget=budget,
        )


def settings(
    sampler: SamplerName, seed: int, space: str = "default", target: str = "1x"
) -> SearchSettings:
    """Return what a search of the demo model is asked."""
    found = load_space(space)
    return SearchSettings(
        model="demo",
        checkpoint=None,
        data=None,
        target=parse_target(target),
        device="cpu",
        dtype="float32",
        batch=BATCH,
        resolution=224,
        space=found.name,
        space_digest=found.digest,
        sampler=sampler,
        seed=seed,
    )
