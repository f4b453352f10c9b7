"""What one half of a block costs at every token count, from samples of all blocks together.

A half of a block costs a sum of a constant, n and n^2, but for the steps of the machine. Where the
samples prove such steps they are believed, and smoothed away where noise explains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokensearch.costs.prices import MAD_TO_SIGMA, OUTLIER, TINY, Floats, Ints, priced

MEDIAN_WIDTH = 1.2533  # standard error of a median over that of a mean, of normal noise
MEDIAN_SQUARE = 0.4549  # median of the square of a normal variable of variance 1
# A block has a factor of its own where it is so many standard errors from all others: of twelve
# blocks with two halves each, chance lets one in fifteen sweeps pass.
DISTINCT = 3.0
ROUNDS = 2  # of factors by the curve, and the curve by factors; a third changes nothing (measured)
REACH = 7  # counts on either side that say together how noisy it is there, and how stepped
LEAST_SAMPLES = 3  # that have a spread


class Halves(NamedTuple):
    """Samples of one half of a block."""

    blocks: Sequence[int]
    counts: Sequence[int]  # patch tokens
    ms: Sequence[float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Costs of one half of a block by patch tokens."""

    name: str
    counts: tuple[int, ...]  # that were measured, ascending
    ms: tuple[float, ...]
    error_ms: tuple[float, ...]  # standard errors
    factors: tuple[float, ...]  # per block: 1 unless it differs beyond noise

    def of(self, count: int, block: int | None = None) -> float:
        """Milliseconds at `count` patch tokens, in `block` or in a usual one."""
        usual = float(np.interp(count, self.counts, self.ms))
        return usual if block is None else usual * self.factors[block]

    def error_of(self, count: int) -> float:
        """Standard error at `count` patch tokens, in milliseconds."""
        return float(np.interp(count, self.counts, self.error_ms))


def curve(name: str, samples: Halves, *, blocks: int) -> Curve:
    """Fit a curve to samples: few terms, steps where they are proven, a factor per block."""
    place, at = np.array(samples.blocks), np.array(samples.counts)
    ms = np.array(samples.ms, dtype=np.float64)
    factors = np.ones(blocks)
    for _ in range(ROUNDS):
        trend = _trend(name, at, ms / factors[place])
        factors = _factors(ms / trend, place, blocks)
    trend = _trend(name, at, ms / factors[place])
    ratios = ms / factors[place] / trend
    near = _undisturbed(at, ratios)
    counts, where = np.unique(at[near], return_inverse=True)
    smooth = np.array([trend[at == count][0] for count in counts])
    medians, error = _medians(ratios[near], where)
    return Curve(
        name,
        tuple(counts.tolist()),
        tuple((smooth * shrunk(medians, error)).tolist()),
        tuple((smooth * error).tolist()),
        tuple(factors.tolist()),
    )


def shrunk(ratios: Floats, error: Floats) -> Floats:
    """Move ratios to a smooth curve towards 1, as far as their noise explains.

    Where those of neighbouring counts stray from 1 no more than their standard errors say, all the
    way; where the machine has steps, hardly. Source: the positive-part estimator of James & Stein
    (1961), over a window, and with a median so that one stray count moves nobody else.
    """
    strays = np.square((ratios - 1) / error)
    near = [np.median(strays[_window(place)]) / MEDIAN_SQUARE for place in range(len(strays))]
    return 1 + np.maximum(0.0, 1 - 1 / np.maximum(near, 1.0)) * (ratios - 1)


def isotonic(values: Floats, weights: Floats) -> Floats:
    """Nearest values that never fall, by weighted squares: pool adjacent violators.

    Source: Barlow, Bartholomew, Bremner & Brunk, "Statistical Inference under Order Restrictions",
    1972.
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, heavy, length = value, weight, 1
        while pools and pools[-1][0] >= mean:
            before, its, more = pools.pop()
            mean = (mean * heavy + before * its) / (heavy + its)
            heavy, length = heavy + its, length + more
        pools.append((mean, heavy, length))
    return np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def spread(values: Floats) -> float:
    """Robust standard deviation, never 0."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values)))) + TINY


def _trend(name: str, at: Ints, ms: Floats) -> Floats:
    """The sum of few terms nearest to the samples, at the count of each."""
    price = priced(name, [(count, count) for count in at.tolist()], ms.tolist())
    return np.array([price.of(count, count) for count in at.tolist()])


def _undisturbed(at: Ints, ratios: Floats) -> npt.NDArray[np.bool_]:
    """Which samples are no outliers among those of neighbouring counts, steps included."""
    kept = np.ones(len(at), dtype=bool)
    for count in np.unique(at):
        own, near = at == count, ratios[np.abs(at - count) <= REACH]
        kept[own] = np.abs(ratios[own] - np.median(near)) <= OUTLIER * spread(near)
    return kept


def _medians(ratios: Floats, where: Ints) -> tuple[Floats, Floats]:
    """Median ratio of each count, and its standard error."""
    size = np.bincount(where)
    medians = np.array([np.median(ratios[where == place]) for place in range(len(size))])
    many = size[where] >= LEAST_SAMPLES
    # A median passes through the middle of its own samples: the fewer, the smaller their residuals.
    freedom = np.sqrt(size[where] / np.maximum(size[where] - 1, 1))
    own = (ratios - medians[where]) * freedom
    noise = spread(own[many] if many.sum() > 2 * REACH else ratios)
    return medians, MEDIAN_WIDTH * noise / np.sqrt(size)


def _factors(ratios: Floats, place: Ints, blocks: int) -> Floats:
    """Median ratio to the curve of each block, where it differs from 1 beyond noise."""
    found = np.ones(blocks)
    for block in range(blocks):
        own = ratios[place == block]
        if len(own) >= LEAST_SAMPLES:
            middle = float(np.median(own))
            error = MEDIAN_WIDTH * spread(own) / np.sqrt(len(own))
            found[block] = middle if abs(middle - 1) > DISTINCT * error else 1.0
    return found


def _window(place: int) -> slice:
    return slice(max(0, place - REACH), place + REACH + 1)
