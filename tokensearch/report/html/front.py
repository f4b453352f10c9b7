"""The front as a chart, and the answer that it gives at every target."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from tokensearch.errors import NoPolicyError
from tokensearch.policy import Policy, PolicySet, parse_target
from tokensearch.records.measurements import Trial
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.html.chart import (
    Axis,
    Chart,
    Mark,
    horizontal,
    path_of,
    place_names,
    vertical,
)
from tokensearch.report.run.front_dots import (
    FrontDot,
    compared_dots,
    front_members,
    lowest_share,
)
from tokensearch.report.run.result import is_answer, measure_of
from tokensearch.report.table import ReportTable
from tokensearch.stats.interval import Interval

EDGE = 0.04  # of what is shown, beyond it
TARGETS = range(5, 101)  # that can be asked for, in percent of the baseline's latency


def front_chart(
    run: RunDocument, dots: Sequence[FrontDot], trials: Sequence[Trial], order: Sequence[str]
) -> Chart:
    """Draw right answers against latency.

    order  schedule hashes of the policies that the page shows
    """
    result, (x, y) = run.finished, _axes(run, dots, trials)
    cloud = [_trial_mark(trial, run, (x, y)) for trial in trials]
    marks = [_mark(dot, run, (x, y), order) for dot in dots]
    front = [dot for dot in dots if dot.kind == "front" and dot.share.value >= y.low]
    members = [(x.at(dot.ms.value), y.at(dot.share.value)) for dot in front]
    limit = None if result.limit_ms is None else x.at(result.limit_ms)
    title = f"{measure_of(run)} against latency, with 95 % intervals"
    return Chart("front", title, x, y, (*cloud, *place_names(marks)), path_of(members), limit)


def shown_dots(run: RunDocument, front: PolicySet) -> tuple[FrontDot, ...]:
    """Presets and controls, then the members of the front, which are drawn over them."""
    return (*compared_dots(run.finished), *front_members(front, run.finished))


def _axes(run: RunDocument, dots: Sequence[FrontDot], trials: Sequence[Trial]) -> tuple[Axis, Axis]:
    """Have room for all intervals, and for the trials up to the slowest of them."""
    baseline_ms, floor = run.finished.baseline_ms, lowest_share(dots)
    right = max([baseline_ms, *(dot.ms.high for dot in dots)])
    left = min([right, *(dot.ms.low for dot in dots), *(t.ratio * baseline_ms for t in trials)])
    seen = (100 * trial.accuracy.share for trial in trials)
    top = max([floor + 1, *(dot.share.high for dot in dots), *seen])
    edge_ms, edge = EDGE * (right - left), EDGE * (top - floor)
    images = text.count(run.cell.batch, "image")
    x = horizontal(f"latency of a pass of {images} (ms)", max(0.0, left - edge_ms), right + edge_ms)
    return x, vertical(f"{measure_of(run)} (%)", floor, top + edge)


def _trial_mark(trial: Trial, run: RunDocument, axes: tuple[Axis, Axis]) -> Mark:
    x, y = axes
    share = 100 * trial.accuracy.share
    tip = f"trial {trial.number}: {text.ratio(trial.ratio)}, {text.percent(share / 100)} on search"
    position = x.at(trial.ratio * run.finished.baseline_ms), y.at(share)
    return Mark("trial", *position, tip, sunk=share < y.low)


def _mark(dot: FrontDot, run: RunDocument, axes: tuple[Axis, Axis], order: Sequence[str]) -> Mark:
    (x, y), answer = axes, is_answer(dot.policy, run.finished)
    known = dot.policy.schedule_hash in order
    return Mark(
        kind=dot.kind,
        x=x.at(dot.ms.value),
        y=y.at(dot.share.value),
        tip=f"{dot.name}{', the answer' if answer else ''}: {_describe(dot, run)}",
        name=_written(dot, answer=answer, sunk=dot.share.value < y.low),
        policy=order.index(dot.policy.schedule_hash) if known else None,
        across=(x.at(dot.ms.low), x.at(dot.ms.high)),
        along=(y.at(dot.share.low), y.at(dot.share.high)),
        star=answer,
        sunk=dot.share.value < y.low,
    )


def _written(dot: FrontDot, *, answer: bool, sunk: bool) -> str:
    """What is written beside a dot; other members of the front say their names when asked."""
    if sunk:  # its height says nothing
        return f"{'answer' if answer else dot.name}, {text.percent(dot.share.value / 100)}"
    if answer:
        return "answer"
    return dot.name if dot.kind != "front" or not dot.policy.reduces else ""


def _describe(dot: FrontDot, run: RunDocument) -> str:
    share, ratio = dot.share.scaled(1 / 100), dot.ms.scaled(1 / run.finished.baseline_ms)
    figures = f"{text.ms(dot.ms.value)}, {text.ratio_interval(ratio)} of the baseline"
    return f"{figures}; {measure_of(run)} {text.percent_interval(share)}"


def front_points(run: RunDocument, dots: Sequence[FrontDot]) -> ReportTable:
    """Return the numbers of the chart, fastest first."""
    shown = sorted(dots, key=lambda dot: dot.ms.value)
    name = measure_of(run)
    figures = (
        *("latency (ms)", "latency low (ms)", "latency high (ms)"),
        *(f"{name} (%)", f"{name} low (%)", f"{name} high (%)"),
    )
    return ReportTable(
        ("kind", "policy", *figures),
        [(dot.kind, dot.name, *_digits(dot.ms), *_digits(dot.share)) for dot in shown],
        numbers=frozenset(figures),
        marked=frozenset(i for i, d in enumerate(shown) if is_answer(d.policy, run.finished)),
    )


def _digits(figure: Interval) -> tuple[str, ...]:
    return tuple(f"{number:.2f}" for number in (figure.value, figure.low, figure.high))


class TargetAnswer(NamedTuple):
    """What the front answers at one target."""

    target: str
    ms: str
    x: float  # pixel of the target in the chart
    policy: int | None  # index of its schedule; None where nothing meets the target
    name: str
    figures: str


def target_answers(
    run: RunDocument, front: PolicySet, chart: Chart, order: Sequence[str]
) -> tuple[TargetAnswer, ...]:
    """Answer every target by the rule of `PolicySet.best`, so that a page need only look it up."""
    members = {dot.policy.schedule_hash: dot for dot in front_members(front, run.finished)}
    return tuple(_answer(percent, run, front, (chart, members, order)) for percent in TARGETS)


_Shown = tuple[Chart, dict[str, FrontDot], Sequence[str]]


def _answer(percent: int, run: RunDocument, front: PolicySet, shown: _Shown) -> TargetAnswer:
    (chart, members, order), target = shown, f"{percent / 100:.2f}x"
    limit_ms = percent / 100 * run.finished.baseline_ms
    where = (target, text.ms(limit_ms), chart.x.at(limit_ms))
    policy, surely = _choose(front, target)
    if policy is None:
        return TargetAnswer(*where, None, text.NONE, "nothing on the front meets it")
    dot = members[policy.schedule_hash]
    doubt = "" if surely else "; it may meet the target, not for certain"
    figures = f"{_describe(dot, run)}{doubt}"
    return TargetAnswer(*where, order.index(policy.schedule_hash), dot.name, figures)


def _choose(front: PolicySet, target: str) -> tuple[Policy | None, bool]:
    """Return what the rule picks, and whether it meets the target for certain."""
    asked = parse_target(target)
    for doubtful in (False, True):
        try:
            return front.best(asked, doubtful=doubtful), not doubtful
        except NoPolicyError:
            continue
    return None, False


def answer_table(answers: Sequence[TargetAnswer]) -> ReportTable:
    """Return the answers, a row for neighbouring targets that have the same."""
    rows = []
    for (name, figures), same in groupby(answers, lambda one: (one.name, one.figures)):
        targets = [answer.target for answer in same]
        rows.append((targets[0], targets[-1], name, figures))
    return ReportTable(("target from", "to", "answer", "figures"), rows)
