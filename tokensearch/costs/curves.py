"""What one half of a block costs at every token count, from samples of all blocks together.

A half of a block costs a sum of a constant, n and n^2, but for the steps of the machine. Where the
samples prove such steps they are believed, and smoothed away where noise explains them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tokensearch.costs.prices import MAD_TO_SIGMA, OUTLIER, TINY, Floats, Ints, fit_price

MEDIAN_WIDTH = 1.2533  # standard error of a median over that of a mean, of normal noise
MEDIAN_SQUARE = 0.4549  # median of the square of a normal variable of variance 1
# A block has a factor of its own where it is so many standard errors from all others: of twelve
# blocks with two halves each, chance lets one in fifteen sweeps pass.
DISTINCT = 3.0
ROUNDS = 5  # of factors by the curve, and the curve by factors: a planted 1.2 is 1.18 after 3
REACH = 7  # counts on either side that say together how noisy it is there, and how stepped
LEAST_SAMPLES = 3  # that have a spread
# Of so many samples the median is believed whatever its neighbours say: with one pass in ten
# disturbed, half of six are once in a thousand counts.
ENOUGH = 6


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


def fit_curve(name: str, samples: Halves, *, blocks: int) -> Curve:
    """Fit a curve to samples: few terms, steps where they are significant, a factor per block."""
    block_of, at = np.array(samples.blocks), np.array(samples.counts)
    ms = np.array(samples.ms, dtype=np.float64)
    factors = np.ones(blocks)
    for _ in range(ROUNDS):
        steps = _fit_steps(name, at, ms / factors[block_of])
        factors = _factors(ms / np.interp(at, steps.counts, steps.ms), block_of, blocks)
    counts, at_usual, error = _fit_steps(name, at, ms / factors[block_of])
    return Curve(
        name,
        tuple(counts.tolist()),
        tuple(at_usual.tolist()),
        tuple(error.tolist()),
        tuple(factors.tolist()),
    )


class _Stepped(NamedTuple):
    counts: Ints
    ms: Floats
    error_ms: Floats


def _fit_steps(name: str, at: Ints, ms: Floats) -> _Stepped:
    """Fit few terms, and by how much each count differs from them beyond noise."""
    counts, where, size = np.unique(at, return_inverse=True, return_counts=True)
    trend = fit_price(name, at, at, ms).at(counts, counts)
    ratios = ms / trend[where]
    medians = np.array([np.median(ratios[where == place]) for place in range(len(counts))])
    error = MEDIAN_WIDTH * _noise(ratios, medians, where, size) / np.sqrt(size)
    sure = (size >= ENOUGH) | _like_neighbours(medians)
    if not sure.any():  # of two counts that are far apart, each is the other's outlier
        sure[:] = True
    smooth, medians, error = trend[sure], medians[sure], error[sure]
    return _Stepped(counts[sure], smooth * shrink_ratios(medians, error), smooth * error)


def shrink_ratios(ratios: Floats, error: Floats) -> Floats:
    """Move ratios to a smooth curve towards 1, as far as their noise explains.

    Where those of neighbouring counts stray from 1 no more than their standard errors say, all the
    way; where the machine has steps, hardly. Source: the positive-part estimator of James & Stein
    (1961), over a window, and with a median so that one stray count moves nobody else.
    """
    near = np.median(_near(np.square((ratios - 1) / error)), axis=1) / MEDIAN_SQUARE
    return 1 + np.maximum(0.0, 1 - 1 / np.maximum(near, 1.0)) * (ratios - 1)


def robust_deviation(values: Floats) -> float:
    """Robust standard deviation, never 0."""
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values)))) + TINY


def _like_neighbours(medians: Floats) -> npt.NDArray[np.bool_]:
    """Which counts are no outliers among their neighbours, steps of the machine included."""
    near = _near(medians)
    middles = np.median(near, axis=1)
    wide = MAD_TO_SIGMA * np.median(np.abs(near - middles[:, None]), axis=1) + TINY
    like: npt.NDArray[np.bool_] = np.abs(medians - middles) <= OUTLIER * wide
    return like


def _noise(ratios: Floats, medians: Floats, where: Ints, size: Ints) -> float:
    """Robust standard deviation of samples of the same count."""
    many = size[where] >= LEAST_SAMPLES
    if many.sum() < LEAST_SAMPLES:
        return robust_deviation(ratios)
    # A median passes through the middle of its own samples: the fewer, the smaller their residuals.
    freedom = np.sqrt(size[where] / np.maximum(size[where] - 1, 1))
    return robust_deviation(((ratios - medians[where]) * freedom)[many])


def _factors(ratios: Floats, block_of: Ints, blocks: int) -> Floats:
    """Median ratio to the curve of each block, over that of the usual block.

    1 where it differs from the usual block's by no more than noise.
    """
    own = [ratios[block_of == block] for block in range(blocks)]
    known = [block for block in range(blocks) if len(own[block]) >= LEAST_SAMPLES]
    middles = {block: float(np.median(own[block])) for block in known}
    usual = float(np.median(list(middles.values()))) if known else 1.0
    factors = np.ones(blocks)
    for block in known:
        error = MEDIAN_WIDTH * robust_deviation(own[block]) / np.sqrt(len(own[block]))
        if abs(middles[block] - usual) > DISTINCT * error:
            factors[block] = middles[block] / usual
    return factors


def _near(values: Floats) -> Floats:
    """Values of each count and of `REACH` on either side, mirrored at the ends: (counts, near)."""
    padded = np.pad(values, REACH, mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)
