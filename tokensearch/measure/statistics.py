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
from statistics import NormalDist

import numpy as np

from tokensearch.resampling import LEVEL, Draws, Values, block_length, draws, expanded

# Pairs per block over the cube root of all pairs, the rate of Hall, Horowitz & Jing (1995).
# Measured: at 1.0, AR(1) noise (0.6) gives 8 % false verdicts at 30 pairs, at 1.5 it gives 5 %;
# at 2.0 independent noise gives 6 % at 10 pairs.
BLOCK_FACTOR = 1.5

# Fewest pairs that carry a verdict. Measured on 2000 synthetic A/A comparisons per kind of noise:
# of independent noise (normal, log-normal, two-speed) 10 % was taken for a difference at 8 pairs,
# 5.4 % at 10, and below 4 % from 12 on; of AR(1) noise (0.6) 12 % at 12 pairs, 6 % at 20 and
# 4.8 % at 30.
VERDICT_PAIRS = 12

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
    block = block or block_length(pairs, factor=BLOCK_FACTOR)
    drawn = draws(pairs, np.random.default_rng(seed), block=block)[1:]
    below, above = (_medians(passes_ms, drawn) for passes_ms in (baseline_ms, candidate_ms))
    tail = _expanded_tail((1 - level) / 2, blocks=pairs / block)
    low, high = np.quantile(above / below, [tail, 1 - tail])
    return float(low), float(high)


def _medians(passes_ms: Sequence[float], drawn: Draws) -> Values:
    """Return the median of every resample. Sorting short rows is faster than `np.median`."""
    ordered = np.sort(np.asarray(passes_ms, dtype=np.float64)[drawn], axis=1)
    count = ordered.shape[1]
    middle: Values = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle


def _expanded_tail(tail: float, *, blocks: float) -> float:
    """Return the tail to cut so that few blocks are as wide as Student's t asks for."""
    return _NORMAL.cdf(-expanded(_NORMAL.inv_cdf(1 - tail), freedom=blocks - 1))
