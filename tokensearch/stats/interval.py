"""A figure with its interval: the one type that every measurement is quoted by. Imports nothing."""

from dataclasses import dataclass


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
