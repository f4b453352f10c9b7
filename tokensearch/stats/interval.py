"""A figure with its interval, the one type that measurements are quoted by; that of paired shares.

Standard library alone: the runtime reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95  # nominal coverage of every interval, unless asked otherwise


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and how far it may be off."""

    value: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2

    @property
    def significant(self) -> bool:
        """Whether a difference is outside the noise: its interval leaves out 0."""
        return self.low > 0 or self.high < 0

    def overlaps(self, other: "Interval") -> bool:
        """Whether both may mean the same value.

        >>> Interval(0.5, 0.4, 0.6).overlaps(Interval(0.7, 0.6, 0.8))
        True
        """
        return self.low <= other.high and other.low <= self.high

    def __neg__(self) -> "Interval":
        """The difference in the other direction.

        >>> -Interval(-1.0, -1.5, -0.2)
        Interval(value=1.0, low=0.2, high=1.5)
        """
        return Interval(-self.value, -self.high, -self.low)

    def scaled(self, factor: float) -> "Interval":
        """Return the same in another unit; the factor is above 0.

        >>> Interval(0.5, 0.4, 0.6).scaled(10)
        Interval(value=5.0, low=4.0, high=6.0)
        """
        return Interval(factor * self.value, factor * self.low, factor * self.high)


def paired_difference(
    only_baseline: float, only_candidate: float, images: float, *, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the candidate's share of right answers minus the baseline's.

    One imaginary image more on either side keeps it honest when models hardly differ: it never has
    no width. Source: Bonett and Price 2012 (Journal of Educational and Behavioral Statistics 37,
    479), recommended for paired shares by Fagerland, Lydersen and Laake 2014 (Statistics in
    Medicine 33, 2850).
    """
    lost, won = ((n + 1) / (images + 2) for n in (only_baseline, only_candidate))
    difference = won - lost
    reach = normal_reach(level) * math.sqrt((won + lost - difference**2) / (images + 2))
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def design_effect(values: Sequence[float], groups: Sequence[int]) -> float:
    """Return how many times more the mean of grouped values varies than that of as many strangers.

    At least 1. Where all values are equal nothing tells: then what it could be at most, the mean
    size of a group. Source: Kish, "Survey Sampling", 1965, chapter 5.

    >>> design_effect([1, 1, 0, 0], [7, 7, 8, 8])
    2.0
    """
    mean = sum(values) / len(values)
    sums: dict[int, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    alone = sum((value - mean) ** 2 for value in values)
    if alone == 0:
        return len(values) / len(sums)
    return max(1.0, sum(total**2 for total in sums.values()) / alone)


def normal_reach(level: float) -> float:
    """Return how many standard deviations hold `level` of a normal distribution.

    >>> round(normal_reach(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf((1 + level) / 2)
