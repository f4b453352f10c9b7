"""What a picture of a front shows, before it is drawn: members, presets and controls."""

from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Literal, NamedTuple

from tokensearch.policy import Policy, PolicySet, is_control
from tokensearch.records.run_result import Finalist, RunDocument, RunResult
from tokensearch.report.run.result import (
    SEARCHED,
    is_answer,
    measure_of,
    name_finalist,
    name_of,
    origin_of,
    read_evidence,
)
from tokensearch.stats.interval import Interval

ROOM = 0.15  # of what is worth showing, below it
FENCE = 3.0  # interquartile ranges below the first quartile: what is lower is far out (Tukey 1977)


class FrontDot(NamedTuple):
    """A policy's place in the picture."""

    kind: Literal["front", "preset", "control"]
    policy: Policy
    name: str
    ms: Interval  # the ratio, times the run's baseline: drift between timings cancels
    share: Interval  # of right answers on `report`, percent


def front_members(front: PolicySet, result: RunResult) -> tuple[FrontDot, ...]:
    """The front, fastest first."""
    return tuple(_make_member(policy, result) for policy in front.policies)


def compared_dots(result: RunResult) -> tuple[FrontDot, ...]:
    """Presets and controls among the finalists, but for the answer."""
    return tuple(_make_dot(f, result) for f in result.finalists if _is_compared(f, result))


def lowest_share(dots: Sequence[FrontDot]) -> float:
    """Lowest share worth showing: what lost nearly all must not squeeze the others into a line."""
    spans = [dot.share for dot in dots if dot.kind != "control"]
    if not spans:
        return 0.0
    values = [span.value for span in spans]
    first, _, third = quantiles(values, method="inclusive") if len(spans) > 1 else values * 3
    fence = first - FENCE * (third - first)
    low = min(span.low for span in spans if span.value >= fence)
    high = max(span.high for span in spans)
    return max(0.0, low - ROOM * (high - low))


def picture_notes(run: RunDocument, dots: Sequence[FrontDot], *, trials: bool) -> tuple[str, ...]:
    """Say what the picture may be misread for.

    trials  whether it has any
    """
    said, floor = list[str](), lowest_share(dots)
    if floor > 0:
        said.append(
            f"The axis of the {measure_of(run)} does not begin at 0; a triangle at its foot lies "
            f"below it."
        )
    if trials:
        said.append(
            "Grey dots are trials, by their score on `search`: other images, on which the search "
            "optimised. A trial above and left of the answer was not passed over, since figures of "
            "different splits cannot be compared."
        )
    return tuple(said)


def _make_member(policy: Policy, result: RunResult) -> FrontDot:
    figures = read_evidence(policy, policy.evidence[0])
    medians = figures.median_ms / figures.baseline_ms
    ratio = figures.ratio or Interval(medians, medians, medians)
    name = name_of(policy, origin_of(policy, result))
    ms = ratio.scaled(result.baseline_ms)
    return FrontDot("front", policy, name, ms, figures.accuracy.scaled(100))


def _make_dot(finalist: Finalist, result: RunResult) -> FrontDot:
    return FrontDot(
        "control" if is_control(finalist.origin) else "preset",
        finalist.policy,
        name_finalist(finalist),
        finalist.comparison.interval.scaled(result.baseline_ms),
        finalist.report.interval.scaled(100),
    )


def _is_compared(finalist: Finalist, result: RunResult) -> bool:
    searched = finalist.origin in SEARCHED
    return finalist.policy.reduces and not searched and not is_answer(finalist.policy, result)


def lengths_of(intervals: Iterable[Interval]) -> tuple[list[float], list[float]]:
    """Lengths of intervals below and above; an edited figure may lie outside its own."""
    spans = list(intervals)
    below = [max(0.0, span.value - span.low) for span in spans]
    return below, [max(0.0, span.high - span.value) for span in spans]
