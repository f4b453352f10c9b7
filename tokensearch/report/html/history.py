"""The history of a search as a chart: the best so far against trials."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tokensearch.front import Point, front, hypervolume
from tokensearch.policy import Objective, objective_value
from tokensearch.records.measurements import Trial, to_json
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.html.chart import (
    Chart,
    Mark,
    horizontal,
    path_of,
    steps_of,
    vertical,
)
from tokensearch.report.run.tables import deciding_name
from tokensearch.report.table import ReportTable

MOST_TRIALS = 800  # drawn and listed: a page of more would not stay small
WORST = Point(accuracy=0.0, latency=1.0)  # nothing right, as slow as the baseline


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A trial, and what the search had reached with it."""

    trial: Trial
    value: float | None  # of its own; None where it is too slow to count
    best: float | None  # up to it; None: nothing counted yet
    seconds: float  # of all trials up to it


@dataclass(frozen=True, slots=True)
class History:
    """A search, trial by trial."""

    measured: str  # what the values are
    points: tuple[HistoryPoint, ...]


def thin_out(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials on all images, every nth where they are more than can be drawn."""
    whole = [trial for trial in trials if trial.state == "complete"]
    return tuple(whole[:: max(1, -(-len(whole) // MOST_TRIALS))])


def make_history(run: RunDocument, trials: Sequence[Trial]) -> History:
    """Follow the objective of what meets the target; without a target, the hypervolume."""
    whole = [trial for trial in trials if trial.state == "complete"]
    seconds = accumulate(trial.seconds for trial in whole)
    if run.settings.target is None:
        measured = "hypervolume of accuracy and latency"
        values = list(_hypervolumes(whole))
        reached: list[tuple[float | None, float | None]] = [(value, value) for value in values]
    else:
        measured = f"{deciding_name(run.settings.objective, 'search')}, best that meets the target"
        reached = list(_best_on_target(run, whole))
    points = [
        HistoryPoint(trial, *values, seconds=spent)
        for trial, values, spent in zip(whole, reached, seconds, strict=True)
    ]
    return History(measured, tuple(points[:: max(1, -(-len(points) // MOST_TRIALS))]))


def _hypervolumes(trials: Sequence[Trial]) -> Iterator[float]:
    members: list[Point] = []  # of the front so far: with all points, time would be quadratic
    for trial in trials:
        points = [*members, Point(trial.accuracy.share, trial.ratio)]
        members = [points[place] for place in front(points)]
        yield hypervolume(members, reference=WORST)


def _best_on_target(
    run: RunDocument, trials: Sequence[Trial]
) -> Iterator[tuple[float | None, float | None]]:
    """Return of each trial its figure where it meets the target, and the best up to it."""
    objective, baseline_ms = run.settings.objective, run.finished.baseline_ms
    limit = run.settings.goal.target_ratio(batch=run.cell.batch, baseline_ms=baseline_ms)
    best: float | None = None
    for trial in trials:
        value = None
        if trial.ratio <= limit:
            value = objective_value(to_json(trial.accuracy), objective)
            best = value if best is None else max(best, value)
        yield _figure(value, objective), _figure(best, objective)


def _figure(value: float | None, objective: Objective) -> float | None:
    """Return the figure whose worth `objective_value` is."""
    if value is None:
        return None
    match objective:
        case "kl" | "ce":
            return abs(value)
        case "cosine":
            return 1.0 + value
        case _:
            return value


def history_chart(history: History) -> Chart | None:
    """Draw it; None where nothing ever counted."""
    known = [point for point in history.points if point.best is not None]
    if not known:
        return None
    values = [value for point in known for value in (point.value, point.best) if value is not None]
    low, high = min(values), max(values)
    x = horizontal("trial", 0, max(point.trial.number for point in known) + 1)
    y = vertical(history.measured, low - 0.05 * (high - low), high + 0.05 * (high - low))
    marks = tuple(
        Mark("step", x.at(point.trial.number), y.at(point.value), _tip(point))
        for point in known
        if point.value is not None
    )
    best = [(x.at(p.trial.number), y.at(p.best)) for p in known if p.best is not None]
    line = path_of([*steps_of(best), (x.end, best[-1][1])])
    return Chart("history", f"{history.measured} against trials", x, y, marks, line)


def _tip(point: HistoryPoint) -> str:
    after = text.duration(point.seconds)
    who = f"trial {point.trial.number}, {text.ratio(point.trial.ratio)}"
    return f"{who}: {_digits(point.value)} after {after}"


def history_table(history: History) -> ReportTable:
    """Return the numbers of the chart."""
    rows = [
        (
            str(point.trial.number),
            text.plain(point.trial.origin),
            f"{point.trial.ratio:.3f}",
            _digits(point.value),
            _digits(point.best),
            f"{point.seconds:.1f}",
        )
        for point in history.points
    ]
    columns = ("trial", "proposed by", "of baseline", "value", "best so far", "seconds so far")
    return ReportTable(columns, rows, numbers=frozenset({"trial", *columns[2:]}))


def _digits(value: float | None) -> str:
    return text.NONE if value is None else f"{value:.5g}"
