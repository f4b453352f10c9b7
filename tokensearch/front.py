"""The Pareto set of accuracy against latency: pure functions on pairs of numbers."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    """What one policy is worth: more accuracy is better, less latency is better."""

    accuracy: float  # 0 to 1
    latency: float  # any unit, one for all points compared


def dominates(point: Point, other: Point) -> bool:
    """Whether `one` is at least as good in both, and better in one.

    >>> dominates(Point(0.9, 2.0), Point(0.9, 3.0)), dominates(Point(0.9, 2.0), Point(0.9, 2.0))
    (True, False)
    """
    return point != other and point.accuracy >= other.accuracy and point.latency <= other.latency


def front(points: Sequence[Point]) -> tuple[int, ...]:
    """Places of the points that no other dominates, fastest first; of equal points the first.

    >>> front([Point(0.9, 3.0), Point(0.8, 1.0), Point(0.8, 2.0), Point(0.9, 3.0)])
    (1, 0)
    """
    chosen: list[int] = []
    best = float("-inf")
    order = sorted(range(len(points)), key=lambda i: (points[i].latency, -points[i].accuracy, i))
    for index in order:
        if points[index].accuracy > best:
            chosen.append(index)
            best = points[index].accuracy
    return tuple(chosen)


def hypervolume(points: Sequence[Point], *, reference: Point) -> float:
    """Area that the points dominate, down to `reference` (a worse accuracy and latency).

    >>> hypervolume([Point(0.5, 1.0), Point(1.0, 2.0)], reference=Point(0.0, 4.0))
    2.5
    """
    inside = [
        p for p in points if p.accuracy > reference.accuracy and p.latency < reference.latency
    ]
    steps = [inside[place] for place in front(inside)]
    ends = [*(step.latency for step in steps[1:]), reference.latency]
    return sum(
        (end - step.latency) * (step.accuracy - reference.accuracy)
        for step, end in zip(steps, ends, strict=False)  # no step, no area
    )


def spread(points: Sequence[Point], count: int) -> tuple[int, ...]:
    """Places of at most `count` members of the front, its ends and the widest gaps first.

    >>> spread([Point(0.5, 1.0), Point(0.6, 1.1), Point(0.8, 3.0), Point(0.9, 5.0)], 3)
    (0, 2, 3)
    """
    members = list(front(points))
    chosen = [members[0], members[-1]] if len(members) > 1 else members
    chosen = chosen[:count]
    while len(chosen) < min(count, len(members)):
        gaps = [
            (points[right].latency - points[left].latency, left, right)
            for left, right in pairwise(sorted(chosen, key=lambda i: points[i].latency))
        ]
        chosen.append(_middle(points, members, chosen, gaps))
    return tuple(sorted(chosen, key=lambda i: points[i].latency))


def _middle(
    points: Sequence[Point],
    members: Sequence[int],
    chosen: Sequence[int],
    gaps: Sequence[tuple[float, int, int]],
) -> int:
    """Member nearest the middle of the widest gap that still holds one."""
    for width, left, right in sorted(gaps, reverse=True):
        centre = points[left].latency + width / 2
        within = [
            m
            for m in members
            if m not in chosen and points[left].latency < points[m].latency < points[right].latency
        ]
        if within:
            return min(within, key=lambda m: abs(points[m].latency - centre))
    return next(m for m in members if m not in chosen)
