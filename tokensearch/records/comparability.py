"""Whether two figures may be compared: cells that differ, a baseline that moved, unequal clocks.

Standard library only, so that a report can ask without torch.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields

from tokensearch.records.measurements import Cell, Comparison, Latency, Machine, Verdict

# Share by which a baseline's speed may change. Randomised pairs cancel such changes in a ratio;
# below this not even the medians quoted beside it are touched visibly.
DRIFT = 0.02
# Share of pairs of passes, one from before and one from after, that must agree on the direction
# (Mann & Whitney's statistic). Measured at 30 passes of pure noise, first against last third:
# 0.1 % pass for drift (asking that middle halves not overlap let 7 % through).
AGREEMENT = 0.9
# Share by which two timings of one policy differ that cannot both be true. Sessions on a quiet
# machine differ by 2 % (standard deviation).
CONTRADICTION = 0.05


def differences(cell: Cell, other: Cell) -> tuple[str, ...]:
    """Name in words what differs between two cells; empty exactly when they are equal.

    Latencies of cells that differ must not be compared without saying how they do.
    """
    return (*_differing(cell, other, "machine"), *_machines(cell.machine, other.machine))


def _machines(machine: Machine, other: Machine) -> Iterator[str]:
    yield from _differing(machine, other, "versions")
    had, has = dict(machine.versions), dict(other.versions)
    versions = [_against(name, had.get(name), has.get(name)) for name in {**had, **has}]
    named = [words for words in versions if words]
    if not named and machine.versions != other.versions:
        named = ["versions in another order"]
    yield from named


def _differing(record: Cell | Machine, other: Cell | Machine, apart: str) -> Iterator[str]:
    """Name the fields that differ, but for the one that is looked at on its own."""
    for item in fields(record):
        words = _against(item.name, getattr(record, item.name), getattr(other, item.name))
        if words and item.name != apart:
            yield words


def _against(name: str, value: object, other: object) -> str:
    """Say how two values differ; empty when they do not."""
    if value == other:
        return ""
    said = ["unknown" if one is None else str(one) for one in (value, other)]
    return f"{name.replace('_', ' ')} {said[0]} against {said[1]}"


def baseline_disagrees(comparison: Comparison) -> bool:
    """Whether a model that was compared with itself is said to be faster or slower."""
    return comparison.verdict in ("faster", "slower")


def contradicts(before: Comparison, now: Comparison) -> bool:
    """Whether two timings of one policy in one cell cannot both be true."""
    first, second = before.interval, now.interval
    return not first.overlaps(second) and abs(first.value / second.value - 1) > CONTRADICTION


def separated(
    before: Sequence[float], after: Sequence[float], agreement: float = AGREEMENT
) -> bool:
    """Whether nearly all of one are above nearly all of the other, so that noise is no excuse."""
    ordered = sorted(after)
    above = sum(len(ordered) - bisect_right(ordered, early) for early in before)
    slower = above / (len(before) * len(after))
    return max(slower, 1 - slower) >= agreement


@dataclass
class BaselineDrift:
    """Watches the baseline over many comparisons: the same work, timed again and again.

    Ratios taken in turn do not feel its changes; milliseconds of different comparisons do.
    """

    baselines: list[Latency] = field(default_factory=list)  # in the order timed

    def see(self, baseline: Latency) -> None:
        """Add the baseline of the next comparison."""
        self.baselines.append(baseline)

    @property
    def moved(self) -> float:
        """Share by which the slowest comparison's baseline is above the fastest's, by medians."""
        medians_ms = [one.median_ms for one in self.baselines]
        return max(medians_ms) / min(medians_ms) - 1 if medians_ms else 0.0

    @property
    def drifted(self) -> bool:
        """Whether the baseline changed by more than its own noise, and by more than `DRIFT`."""
        if self.moved <= DRIFT:
            return False
        ordered = sorted(self.baselines, key=lambda one: one.median_ms)
        return separated(ordered[0].passes_ms, ordered[-1].passes_ms)


def verdict(low: float, high: float, precision: float) -> Verdict:
    """Say what an interval of the ratio proves.

    "same" needs an interval that contains 1 and stays within twice `precision` of it. Twice,
    because an interval of half-width `precision` that contains 1 reaches no further: whoever has
    timed until the wanted precision gets an answer, never "ambiguous".
    """
    if high < 1:
        return "faster"
    if low > 1:
        return "slower"
    if max(1 - low, high - 1) <= 2 * precision:
        return "same"
    return "ambiguous"
