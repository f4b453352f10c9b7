"""What a search finds against what was published: at equal latency, and at equal accuracy."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.searching import Bench, Quiet, settings
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.front import spread
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy, preset
from tokensearch.policy.file import policy_from_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SearchBudget
from tokensearch.runtime import describe
from tokensearch.search import SearchRun, load_space
from tokensearch.search.finalists.selection import rank_trials
from tokensearch.search.loop import SearchLoop
from tokensearch.search.time_plan import TimePlan
from tokensearch.stats.interval import paired_difference

PRESETS = (
    "tome-r8",
    "tome-r13",
    "tome-r16",
    "topk-0.7",
    "evit-0.7",
    "ppt-r50",
    "diffrate-s-2.3",
    "diffrate-s-2.9",
)
MOST_TIMED = 12  # members of the front that are timed afresh
TIMED = TimingBudget(warmup=2, first_look=30, max_rounds=120, seconds=4.0, precision=0.01)


@dataclass(frozen=True, slots=True)
class Row:
    """One preset, and what was found for its latency and for its accuracy."""

    name: str
    ratio: float  # of the baseline's latency, timed in turn
    accuracy: float  # on `report`
    found_ratio: float  # the best on `select` that is no slower, by fresh timings
    found_accuracy: float  # on `report`
    points: tuple[float, float]  # its 95 % interval of the difference, paired by image
    as_near: "Sooner | None"  # the fastest that diverges no more on `select`; None: there is none
    as_right: "Sooner | None"  # the fastest that is right no less often there

    @property
    def line(self) -> str:
        """The same as text."""
        low, high = self.points
        return (
            f"{self.name:15} {self.ratio:.3f}x {100 * self.accuracy:.2f} %  found at most as slow: "
            f"{self.found_ratio:.3f}x {100 * self.found_accuracy:.2f} % "
            f"({100 * (self.found_accuracy - self.accuracy):+.2f} points "
            f"[{100 * low:+.2f}, {100 * high:+.2f}]); at its accuracy {_sooner(self.as_right)}, "
            f"at its divergence {_sooner(self.as_near)}"
        )


@dataclass(frozen=True, slots=True)
class Sooner:
    """What was found as good on `select`, and by how much it is faster than what was published."""

    faster: float  # share of the preset's latency, timed afresh: the least of many is lucky
    points: tuple[float, float]  # 95 % interval of the difference on `report`, paired by image

    @property
    def share(self) -> float:
        """By which it is faster, as far as it counts: 0 where it is significantly less accurate."""
        return 0.0 if self.points[1] < 0 else self.faster


def _sooner(found: Sooner | None) -> str:
    if found is None:
        return "nothing"
    low, high = found.points
    return (
        f"{100 * abs(found.faster):.0f} % {'faster' if found.faster >= 0 else 'slower'} "
        f"[{100 * low:+.2f}, {100 * high:+.2f}]"
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """One policy with all that it is held by."""

    policy: Policy
    ratio: float
    kl: float  # on `select`, where choices are made
    top1: float


def against_presets(bench: Bench, *, minutes: float) -> Iterator[Row]:
    """Search the whole front for some minutes, time what it holds afresh, and compare."""
    search = _searched(bench, minutes)
    evaluator = search.evaluator
    found = [_timed(evaluator, policy) for policy in _front(search)]
    spec = describe(bench.model)
    for name in PRESETS:
        published = _timed(evaluator, preset(name, spec))
        as_fast = [one for one in found if one.ratio <= published.ratio]
        as_near = [one for one in found if one.kl <= published.kl]
        as_right = [one for one in found if one.top1 >= published.top1]
        best = min(as_fast, key=lambda one: one.kl, default=None)
        if best is None:  # the search has nothing as fast: its fastest stands for it, and is slower
            best = min(found, key=lambda one: one.ratio)
        lost, won = _changed(evaluator, published.policy, best.policy)
        images = len(bench.splits.report)
        yield Row(
            name,
            published.ratio,
            evaluator.score(published.policy, "report").accuracy.top1,
            best.ratio,
            evaluator.score(best.policy, "report").accuracy.top1,
            paired_difference(lost, won, images),
            _fastest(evaluator, as_near, published),
            _fastest(evaluator, as_right, published),
        )


def _searched(bench: Bench, minutes: float) -> SearchLoop:
    session = SearchRun(
        bench.model,
        bench.splits,
        load_space("default"),
        settings("local", 0),
        SearchBudget(None, 60 * minutes),
        RunFolder(Path(tempfile.mkdtemp(prefix="tokensearch-bench-"))),
        Quiet(),
        "python -m tests.bench search",
        bench.store,
    )
    session.folder.create()
    return session.searched(session.evaluator(), TimePlan())


def _front(search: SearchLoop) -> list[Policy]:
    """Policies worth a fresh timing: what the search found itself, and was on its front."""
    ours = [one for one in rank_trials(search) if one.trial.origin in {"sampler", "seed", "random"}]
    places = spread([one.point for one in ours], MOST_TIMED)
    return [policy_from_json(ours[place].trial.policy) for place in places]


def _timed(evaluator: PolicyEvaluator, policy: Policy) -> Timed:
    select = evaluator.score(policy, "select").accuracy
    return Timed(policy, evaluator.time(policy, TIMED).ratio, select.kl, select.top1)


def _fastest(evaluator: PolicyEvaluator, found: Sequence[Timed], published: Timed) -> Sooner | None:
    if not found:
        return None
    policy = min(found, key=lambda one: one.ratio).policy
    faster = 1 - evaluator.time(policy, TIMED).ratio / published.ratio
    lost, won = _changed(evaluator, published.policy, policy)
    return Sooner(faster, paired_difference(lost, won, len(evaluator.splits.report)))


def _changed(evaluator: PolicyEvaluator, one: Policy, other: Policy) -> tuple[int, int]:
    """Images of `report` that only the first gets right, and that only the other does."""
    right = [
        evaluator.predictions.results(policy, "report").right(evaluator.splits.report)
        for policy in (one, other)
    ]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
