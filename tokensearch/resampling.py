"""Bootstrap of rounds: what figures would have been, had other rounds been taken.

Rounds are drawn in blocks of neighbours, which resemble each other, and with all that was timed in
them, so that what falls on all alike cancels (Davison & Hinkley, "Bootstrap Methods", 1997).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cbrt, sqrt

import numpy as np
import numpy.typing as npt

LEVEL = 0.95  # nominal coverage of every interval; the field's habit
RESAMPLES = 1000  # from seed to seed the ends then move by 5 to 8 % of the half-width (measured)
# Rounds per block over the cube root of all rounds. Measured on synthetic ledgers of a model with
# itself, 60 terms: at 1.0 0 to 3 % of independent noise gave a term outside it, 7 to 8 % of AR(1)
# noise (0.6) that the two sides do not share; at 1.5 fewer, with intervals of no use at 12 rounds.
BLOCK_FACTOR = 1.0

Values = npt.NDArray[np.float64]
Draws = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its interval. Milliseconds, candidate minus baseline, unless said otherwise."""

    value: float
    low: float
    high: float

    @property
    def proven(self) -> bool:
        """Whether it is outside the noise: its interval does not hold 0."""
        return self.low > 0 or self.high < 0


def draws(rounds: int, random: np.random.Generator, *, block: int | None = None) -> Draws:
    """Rounds of every resample, (1 + RESAMPLES, rounds); the first row is the rounds themselves.

    `block` neighbours are drawn together; None lets it grow with the rounds.
    """
    block = block or block_length(rounds)
    starts = random.integers(0, rounds, size=(RESAMPLES, -(-rounds // block)))
    drawn = (starts[:, :, None] + np.arange(block)) % rounds
    return np.vstack([np.arange(rounds), drawn.reshape(RESAMPLES, -1)[:, :rounds]])


def middle_means(passes_ms: Values, drawn: Draws) -> Values:
    """Means of every part over the middle half of the passes, by whole time.

    passes_ms  (rounds, parts)
    drawn      (resamples, rounds)
    ->         (resamples, parts)
    """
    resamples, rounds = drawn.shape
    cut = rounds // 4
    # Places instead of times: whole numbers of 16 bits are sorted by their digits, in a third of
    # the time that floats take.
    levels, place = np.unique(passes_ms.sum(axis=1), return_inverse=True)
    places = place.astype(np.uint16 if len(levels) <= 2**16 else np.int64)
    order = np.argsort(places[drawn], axis=1, kind="stable")[:, cut : rounds - cut]
    kept = np.take_along_axis(drawn, order, axis=1)
    cells = kept + np.arange(resamples)[:, None] * rounds
    often = np.bincount(cells.ravel(), minlength=resamples * rounds).reshape(resamples, rounds)
    means: Values = (often / kept.shape[1]) @ passes_ms
    return means


def simultaneous(values: Sequence[Values], *, blocks: float) -> list[Estimate]:
    """Intervals that hold for all figures at once. Each: row 0 as measured, then resamples.

    `blocks` were drawn from: few of them make a bootstrap too narrow, which is mended by taking
    Student's t where it takes the normal distribution (Hesterberg 2015, section 5.3).
    """
    if not values:
        return []
    table = np.array(values)
    measured, deviations = table[:, 0], table[:, 1:] - table[:, :1]
    error = deviations.std(axis=1)
    scale = np.where(error > 0, error, 1.0)
    normal_reach = float(np.quantile(np.abs(deviations / scale[:, None]).max(axis=0), LEVEL))
    reach = expanded(normal_reach, freedom=blocks - 1)
    return [
        Estimate(float(value), float(value - reach * one), float(value + reach * one))
        for value, one in zip(measured, error, strict=True)
    ]


def expanded(z: float, *, freedom: float) -> float:
    """Widen a reach in standard errors as Student's t does for so many degrees of freedom.

    Source: Abramowitz & Stegun 26.7.5, within 1 % from 3 degrees on, and sqrt(n / (n - 1)) for the
    bootstrap's own bias (Hesterberg 2015, section 5.3).
    """
    freedom = max(freedom, 1.0)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = z + first / freedom + second / freedom**2 + third / freedom**3
    return t * sqrt((freedom + 1) / freedom)


def block_length(rounds: int, *, factor: float = BLOCK_FACTOR) -> int:
    """Neighbouring rounds that are drawn together."""
    return max(1, round(factor * cbrt(rounds)))
