"""The picture of a front."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from tokensearch.policy import Policy, PolicySet, is_control
from tokensearch.records.measurements import Trial
from tokensearch.records.run_result import Finalist, RunDocument, RunResult
from tokensearch.report import text
from tokensearch.report.figure import FAINT, INK, figure_page, save_figure
from tokensearch.report.run.result import (
    SEARCHED,
    is_answer,
    measure_of,
    name_finalist,
    read_evidence,
)
from tokensearch.stats.interval import Interval

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
FOUND, PUBLISHED, CONTROL, TARGET = "#0072b2", "#d55e00", "#a06a94", "#009e73"
MARGIN = 0.04  # of the picture's height, below the floor
ROOM = 0.75  # of what front and presets span, shown below them


def draw_front(run: RunDocument, front: PolicySet, trials: Iterable[Trial], path: Path) -> None:
    """Draw right answers against latency: trials, front, presets, baseline and target.

    Latencies are ratios timed in turn, times the baseline's: drift between trials cancels.
    """
    figure, axes = figure_page()
    result = run.finished
    members = [_make_member(policy, result.baseline_ms) for policy in front.policies]
    compared = [
        _make_dot(f, result.baseline_ms) for f in result.finalists if _is_compared(f, result)
    ]
    floor = _floor([*members, *(dot for dot in compared if not dot.control)])
    _draw_trials(axes, trials, result.baseline_ms, floor)
    if result.limit_ms is not None:
        label = f"target {run.settings.target} ({text.ms(result.limit_ms)})"
        axes.axvline(result.limit_ms, color=TARGET, linestyle="--", linewidth=1.2, label=label)
    _draw_members(axes, result, members)
    _draw_compared(axes, compared, floor)
    axes.set_ylim(bottom=floor - MARGIN * max(1.0, axes.get_ylim()[1] - floor))
    images = text.count(run.cell.batch, "image")
    axes.set_xlabel(f"latency of a pass of {images} (ms: ratio times the baseline's latency)")
    axes.set_ylabel(f"{measure_of(run)} (%)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    save_figure(figure, path)


class _Dot(NamedTuple):
    """A policy's place in the picture."""

    ms: float
    share: float  # percent
    low: float
    high: float
    policy: Policy
    name: str = ""
    control: bool = False


def _make_member(policy: Policy, baseline_ms: float) -> _Dot:
    figures = read_evidence(policy, policy.evidence[0])
    medians = figures.median_ms / figures.baseline_ms
    ratio = medians if figures.ratio is None else figures.ratio.value
    return _Dot(ratio * baseline_ms, *_percent(figures.accuracy), policy)


def _make_dot(finalist: Finalist, baseline_ms: float) -> _Dot:
    return _Dot(
        finalist.comparison.ratio * baseline_ms,
        *_percent(finalist.report.interval),
        finalist.policy,
        name_finalist(finalist),
        is_control(finalist.origin),
    )


def _percent(share: Interval) -> tuple[float, float, float]:
    return 100 * share.value, 100 * share.low, 100 * share.high


def _floor(dots: Sequence[_Dot]) -> float:
    """Lowest share worth showing: a hopeless trial must not squeeze the front into a line."""
    if not dots:
        return 0.0
    low, high = min(dot.low for dot in dots), max(dot.high for dot in dots)
    return low - ROOM * (high - low)


def _is_compared(finalist: Finalist, result: RunResult) -> bool:
    searched = finalist.origin in SEARCHED
    return finalist.policy.reduces and not searched and not is_answer(finalist.policy, result)


def _draw_trials(axes: Axes, trials: Iterable[Trial], baseline_ms: float, floor: float) -> None:
    whole = [trial for trial in trials if trial.state == "complete"]
    ms = [trial.ratio * baseline_ms for trial in whole]
    shares = [100 * trial.accuracy.share for trial in whole]
    _scatter(axes, ms, shares, floor, color=FAINT, s=14, label="trials (search split)")


def _scatter(
    axes: Axes, ms: Sequence[float], shares: Sequence[float], floor: float, **style: Any
) -> None:
    """Draw dots; those below the floor stand on it, as triangles that point down."""
    shown = [(x, y) for x, y in zip(ms, shares, strict=True) if y >= floor]
    sunk = [(x, floor) for x, y in zip(ms, shares, strict=True) if y < floor]
    if shown:
        axes.scatter(*zip(*shown, strict=True), linewidths=0, **style)
    if sunk:
        below = style | {"marker": "v", "label": f"{style['label']}, below the axis"}
        axes.scatter(*zip(*sunk, strict=True), linewidths=0, **below)


def _reach(lengths: Iterable[float]) -> list[float]:
    """Lengths of intervals; an edited figure may lie outside its own."""
    return [max(0.0, length) for length in lengths]


def _draw_members(axes: Axes, result: RunResult, members: Sequence[_Dot]) -> None:
    axes.errorbar(
        [dot.ms for dot in members],
        [dot.share for dot in members],
        yerr=[_reach(d.share - d.low for d in members), _reach(d.high - d.share for d in members)],
        color=FOUND,
        ecolor="#9ec9e2",
        marker="o",
        markersize=5,
        linewidth=1.4,
        label="front (report split, 95 % intervals)",
    )
    for dot in members:
        if is_answer(dot.policy, result):
            axes.plot(dot.ms, dot.share, marker="*", ms=16, color=FOUND, mec="white", zorder=4)
            _name(axes, "answer", dot.ms, dot.share, colour=FOUND)
        elif not dot.policy.reduces:
            _name(axes, "baseline", dot.ms, dot.share, colour=INK)


def _draw_compared(axes: Axes, compared: Sequence[_Dot], floor: float) -> None:
    for colour, label, control in (
        (PUBLISHED, "published presets (report split)", False),
        (CONTROL, "controls (report split)", True),
    ):
        dots = [dot for dot in compared if dot.control == control]
        ms, shares = [dot.ms for dot in dots], [dot.share for dot in dots]
        _scatter(axes, ms, shares, floor, color=colour, s=36, marker="D", label=label, zorder=3)
        for dot in dots:
            sunk = dot.share < floor
            name = f"{dot.name}, {text.percent(dot.share / 100)}" if sunk else dot.name
            _name(axes, name, dot.ms, max(floor, dot.share), colour=colour)


def _name(axes: Axes, name: str, x_ms: float, share: float, *, colour: str) -> None:
    """Write a name beside its dot, readable over lines; neighbours by turns above and below."""
    axes.annotate(
        name,
        (x_ms, share),
        xytext=(8, 7) if len(axes.texts) % 2 == 0 else (8, -14),
        textcoords="offset points",
        color=colour,
        fontsize=8,
        zorder=5,
        parse_math=False,  # a name may hold dollars
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )
