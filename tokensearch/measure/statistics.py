"""What paired timings prove: an interval of their ratio, and a verdict. Doubts are in `doubts`.

Pure functions of samples in milliseconds. The interval is a *circular block bootstrap* of pairs
with *expanded percentiles*:

* pairs, not passes, are drawn, so what falls on both models alike cancels (Davison & Hinkley,
  "Bootstrap Methods", 1997);
* runs of consecutive pairs are drawn together, since neighbours resemble each other: of AR(1) noise
  (coefficient 0.6) at 60 pairs, drawing pairs singly took 21 % of A/A comparisons for a difference,
  drawing them in blocks 4 %;
* the percentiles are moved outward, since a bootstrap of few samples is too narrow (Hesterberg,
  "What Teachers Should Know About the Bootstrap", 2015): of independent noise at 10 pairs the plain
  percentiles took 10 % for a difference, the expanded ones 5 %.

A standard error with a t quantile was tried, and dropped: where passes have two speeds, the median
jumps between them and 14 % of A/A comparisons differed.
"""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

LEVEL = 0.95  # nominal coverage of the interval; the field's habit
RESAMPLES = 1000  # from seed to seed the ends then move by 5 to 8 % of the half-width (measured)

# Pairs per block over the cube root of all pairs, the rate of Hall, Horowitz & Jing (1995).
# Measured: at 1.0, AR(1) noise (0.6) gives 8 % false verdicts at 30 pairs, at 1.5 it gives 5 %;
# at 2.0 independent noise gives 6 % at 10 pairs.
BLOCK_FACTOR = 1.5

# Fewest pairs that carry a verdict. Measured on 2000 synthetic A/A comparisons per kind of noise:
# of independent noise (normal, log-normal, two-speed) 10 % was taken for a difference at 8 pairs,
# 5.4 % at 10, and below 4 % from 12 on; of AR(1) noise (0.6) 12 % at 12 pairs, 6 % at 20 and
# 4.8 % at 30.
VERDICT_PAIRS = 12

Samples = npt.NDArray[np.float64]
Draws = npt.NDArray[np.int64]
_NORMAL = NormalDist()


def ratio_interval(
    baseline_ms: Sequence[float],
    candidate_ms: Sequence[float],
    *,
    seed: int,
    block: int | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of median(candidate) / median(baseline), without unit.

    `block` consecutive pairs are drawn together; None lets it grow with the number of pairs. The
    same samples and seed give the same interval.
    """
    pairs = len(baseline_ms)
    block = block or max(1, round(BLOCK_FACTOR * pairs ** (1 / 3)))
    drawn = _drawn_pairs(pairs, block, np.random.default_rng(seed))
    below, above = (_medians(passes_ms, drawn) for passes_ms in (baseline_ms, candidate_ms))
    tail = _expanded_tail((1 - level) / 2, blocks=pairs / block)
    low, high = np.quantile(above / below, [tail, 1 - tail])
    return float(low), float(high)


def _drawn_pairs(pairs: int, block: int, random: np.random.Generator) -> Draws:
    """Return pair numbers, shape (RESAMPLES, pairs); those past the last go on at the first."""
    starts = random.integers(0, pairs, size=(RESAMPLES, -(-pairs // block)))
    numbers = starts[:, :, None] + np.arange(block)
    return numbers.reshape(RESAMPLES, -1)[:, :pairs]


def _medians(passes_ms: Sequence[float], drawn: Draws) -> Samples:
    """Return the median of every resample. Sorting short rows is faster than `np.median`."""
    twice = np.asarray([*passes_ms, *passes_ms], dtype=np.float64)  # blocks may pass the end
    ordered = np.sort(twice[drawn], axis=1)
    count = ordered.shape[1]
    middle: Samples = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle


def _expanded_tail(tail: float, *, blocks: float) -> float:
    """Return the tail to cut so that few blocks are as wide as Student's t asks for.

    Source: Hesterberg 2015, section 5.3: Phi(-sqrt(n / (n - 1)) t(1 - tail, n - 1)).
    """
    freedom = max(blocks - 1, 1.0)
    return _NORMAL.cdf(-sqrt((freedom + 1) / freedom) * _t_quantile(1 - tail, freedom))


def _t_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's t by Abramowitz & Stegun 26.7.5, within 1 % from 3 degrees on."""
    z = _NORMAL.inv_cdf(share)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
