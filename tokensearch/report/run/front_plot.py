"""The picture of a front."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from tokensearch.policy import Policy, PolicySet
from tokensearch.report import text
from tokensearch.report.figure import FAINT, INK, figure_page, save_figure
from tokensearch.report.run.result import SEARCHED, Finalist, RunFindings, read_measured
from tokensearch.stats.interval import Interval

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
FOUND, PUBLISHED, CONTROL, TARGET = "#0072b2", "#d55e00", "#a06a94", "#009e73"
MARGIN = 0.04  # of the picture's height, below the floor
ROOM = 0.75  # of what front and presets span, shown below them


def draw_front(
    findings: RunFindings, front: PolicySet, trials: Iterable[dict[str, Any]], path: Path
) -> None:
    """Draw right answers against latency: trials, front, presets, baseline and target.

    Latencies are ratios timed in turn, times the baseline's: drift between trials cancels.
    """
    figure, axes = figure_page()
    members = [_member(policy, findings) for policy in front.policies]
    compared = [one for one in findings.finalists if _is_compared(one, findings)]
    floor = _floor([*members, *(_dot(one, findings) for one in compared if not one.control)])
    _draw_trials(axes, findings, trials, floor)
    label = f"target {findings.target} ({text.ms(findings.limit_ms)})"
    axes.axvline(findings.limit_ms, color=TARGET, linestyle="--", linewidth=1.2, label=label)
    _draw_members(axes, findings, members)
    _draw_compared(axes, findings, compared, floor)
    axes.set_ylim(bottom=floor - MARGIN * max(1.0, axes.get_ylim()[1] - floor))
    images = text.count(findings.batch, "image")
    axes.set_xlabel(f"latency of a pass of {images} (ms, ratio times one baseline latency)")
    axes.set_ylabel(f"{findings.measure} (%)")
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    save_figure(figure, path)


class _Dot(NamedTuple):
    """A policy's place in the picture."""

    ms: float
    share: float  # percent
    low: float
    high: float
    policy: Policy


def _member(policy: Policy, findings: RunFindings) -> _Dot:
    one = read_measured(policy, policy.evidence[0])
    ratio = one.median_ms / one.baseline_ms if one.ratio is None else one.ratio.value
    return _placed(ratio * findings.baseline_ms, one.accuracy, policy)


def _dot(one: Finalist, findings: RunFindings) -> _Dot:
    return _placed(one.ratio.value * findings.baseline_ms, one.report, one.policy)


def _placed(latency_ms: float, share: Interval, policy: Policy) -> _Dot:
    return _Dot(latency_ms, 100 * share.value, 100 * share.low, 100 * share.high, policy)


def _floor(dots: Sequence[_Dot]) -> float:
    """Lowest share worth showing: a hopeless trial must not squeeze the front into a line."""
    if not dots:
        return 0.0
    low, high = min(dot.low for dot in dots), max(dot.high for dot in dots)
    return low - ROOM * (high - low)


def _is_compared(one: Finalist, findings: RunFindings) -> bool:
    searched = one.origin in SEARCHED
    return one.policy.reduces and not searched and not findings.is_answer(one.policy)


def _draw_trials(
    axes: Axes, findings: RunFindings, trials: Iterable[dict[str, Any]], floor: float
) -> None:
    whole = [trial for trial in trials if trial["state"] == "complete"]
    ms = [_ratio(trial) * findings.baseline_ms for trial in whole]
    shares = [100 * trial["accuracy"]["top1"] for trial in whole]
    _scatter(axes, ms, shares, floor, color=FAINT, s=14, label="trials (search split)")


def _ratio(trial: dict[str, Any]) -> float:
    """As timed, else as predicted: most trials are."""
    timed = trial["comparison"]
    return float(trial["predicted"] if timed is None else timed["ratio"])


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


def _draw_members(axes: Axes, findings: RunFindings, members: Sequence[_Dot]) -> None:
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
        if findings.is_answer(dot.policy):
            axes.plot(dot.ms, dot.share, marker="*", ms=16, color=FOUND, mec="white", zorder=4)
            _name(axes, "answer", dot.ms, dot.share, colour=FOUND)
        elif not dot.policy.reduces:
            _name(axes, "baseline", dot.ms, dot.share, colour=INK)


def _draw_compared(
    axes: Axes, findings: RunFindings, compared: Sequence[Finalist], floor: float
) -> None:
    for colour, label, control in (
        (PUBLISHED, "published presets (report split)", False),
        (CONTROL, "controls (report split)", True),
    ):
        kind = [one for one in compared if one.control == control]
        dots = [_dot(one, findings) for one in kind]
        ms, shares = [dot.ms for dot in dots], [dot.share for dot in dots]
        _scatter(axes, ms, shares, floor, color=colour, s=36, marker="D", label=label, zorder=3)
        for one, dot in zip(kind, dots, strict=True):
            sunk = dot.share < floor
            name = f"{one.name}, {text.percent(dot.share / 100)}" if sunk else one.name
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
