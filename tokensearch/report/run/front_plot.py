"""The picture of a front."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from tokensearch.policy import PolicySet
from tokensearch.records.measurements import Trial
from tokensearch.records.run_result import RunDocument, RunResult
from tokensearch.report import text
from tokensearch.report.figure import FAINT, INK, figure_page, save_figure
from tokensearch.report.run.front_dots import (
    FrontDot,
    compared_dots,
    front_members,
    lengths_of,
    lowest_share,
)
from tokensearch.report.run.result import is_answer, measure_of

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
FOUND, PUBLISHED, CONTROL, TARGET = "#0072b2", "#d55e00", "#a06a94", "#009e73"
MARGIN = 0.04  # of the picture's height, below the floor


def draw_front(run: RunDocument, front: PolicySet, trials: Iterable[Trial], path: Path) -> None:
    """Draw right answers against latency: trials, front, presets, baseline and target.

    Latencies are ratios timed in turn, times the baseline's: drift between trials cancels.
    """
    figure, axes = figure_page()
    result = run.finished
    members, compared = front_members(front, result), compared_dots(result)
    floor = lowest_share([*members, *compared])
    _draw_trials(axes, trials, result.baseline_ms, floor)
    if result.limit_ms is not None:
        label = f"target {run.settings.target} ({text.ms(result.limit_ms)})"
        axes.axvline(result.limit_ms, color=TARGET, linestyle="--", linewidth=1.2, label=label)
    _draw_members(axes, result, members, floor)
    _draw_compared(axes, compared, floor)
    axes.set_ylim(bottom=floor - MARGIN * max(1.0, axes.get_ylim()[1] - floor))
    images = text.count(run.cell.batch, "image")
    axes.set_xlabel(f"latency of a pass of {images} (ms: ratio times the baseline's latency)")
    axes.set_ylabel(f"{measure_of(run)} (%)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    save_figure(figure, path)


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


def _draw_members(axes: Axes, result: RunResult, members: Sequence[FrontDot], floor: float) -> None:
    axes.errorbar(
        [dot.ms.value for dot in members],
        [dot.share.value for dot in members],
        yerr=lengths_of(dot.share for dot in members),
        color=FOUND,
        ecolor="#9ec9e2",
        marker="o",
        markersize=5,
        linewidth=1.4,
        label="front (report split, 95 % intervals)",
    )
    sunk = [dot.ms.value for dot in members if dot.share.value < floor]
    label = "front (report split)"
    _scatter(axes, sunk, [-1.0] * len(sunk), floor, color=FOUND, s=36, label=label, zorder=3)
    for dot in members:
        if is_answer(dot.policy, result):
            axes.plot(
                dot.ms.value, dot.share.value, marker="*", ms=16, color=FOUND, mec="white", zorder=4
            )
            _name(axes, "answer", dot.ms.value, dot.share.value, colour=FOUND)
        elif not dot.policy.reduces:
            _name(axes, "baseline", dot.ms.value, dot.share.value, colour=INK)


def _draw_compared(axes: Axes, compared: Sequence[FrontDot], floor: float) -> None:
    for colour, label, kind in (
        (PUBLISHED, "published presets (report split)", "preset"),
        (CONTROL, "controls (report split)", "control"),
    ):
        dots = [dot for dot in compared if dot.kind == kind]
        ms, shares = [dot.ms.value for dot in dots], [dot.share.value for dot in dots]
        _scatter(axes, ms, shares, floor, color=colour, s=36, marker="D", label=label, zorder=3)
        for dot in dots:
            share = dot.share.value
            name = f"{dot.name}, {text.percent(share / 100)}" if share < floor else dot.name
            _name(axes, name, dot.ms.value, max(floor, share), colour=colour)


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
