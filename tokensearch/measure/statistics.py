"""What paired timings prove: an interval of their ratio, a verdict, and reasons for doubt.

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
from statistics import NormalDist, fmean, median

import numpy as np
import numpy.typing as npt

from tokensearch.records import Caution, Latency, Verdict

LEVEL = 0.95  # nominal coverage of the interval; the field's habit
RESAMPLES = 1000  # from seed to seed the ends then move by 5 to 8 % of the half-width (measured)

# Pairs per block over the cube root of all pairs, the rate of Hall, Horowitz & Jing (1995).
# Measured: at 1.0, AR(1) noise (0.6) gives 8 % false verdicts at 30 pairs, at 1.5 it gives 5 %;
# at 2.0 independent noise gives 6 % at 10 pairs.
BLOCK_FACTOR = 1.5

# Fewest pairs that carry a verdict, and fewest that carry it without a caution. Measured on
# 2000 synthetic A/A comparisons per kind of noise: of independent noise (normal, log-normal,
# two-speed) 10 % was taken for a difference at 8 pairs, 5.4 % at 10, and below 4 % from 12 on; of
# AR(1) noise (0.6) 12 % at 12 pairs, 6 % at 20, 4.8 % at 30.
VERDICT_PAIRS = 12
ENOUGH_PASSES = 30

SLOW_START = 1.5  # first pass against the median: lazy initialisation costs more than noise does
WIDE_SPREAD = 0.10  # quartile distance over median: torch.utils.benchmark's _IQR_WARN_THRESHOLD
# Share by which the baseline's last third may leave its first third. Randomised pairs cancel drift
# in the ratio, but below this not even the medians quoted beside it are touched visibly.
DRIFT = 0.02
# Share of (first third, last third) pairs that must agree on the direction. Measured at 30 passes
# of pure noise: 0.1 % pass for drift (asking that middle halves not overlap let 7 % through).
DRIFT_AGREEMENT = 0.9

Samples = npt.NDArray[np.float64]
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
    below = np.median(np.asarray(baseline_ms, dtype=np.float64)[drawn], axis=1)
    above = np.median(np.asarray(candidate_ms, dtype=np.float64)[drawn], axis=1)
    tail = _expanded_tail((1 - level) / 2, blocks=pairs / block)
    low, high = np.quantile(above / below, [tail, 1 - tail])
    return float(low), float(high)


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


def cautions(baseline: Latency, candidate: Latency) -> tuple[Caution, ...]:
    """Return the reasons to distrust a comparison of two latencies; empty when there are none."""
    both = (baseline, candidate)
    checks = {
        Caution.SLOW_START: any(one.passes_ms[0] > SLOW_START * one.median_ms for one in both),
        Caution.WIDE_SPREAD: any(one.spread_ms > WIDE_SPREAD * one.median_ms for one in both),
        Caution.DRIFT: drifts(baseline.passes_ms),
        Caution.FEW_PASSES: any(len(one.passes_ms) < ENOUGH_PASSES for one in both),
    }
    return tuple(caution for caution, holds in checks.items() if holds)


def drifts(passes_ms: Sequence[float]) -> bool:
    """Whether the last third of the passes left the first third behind.

    Their medians must differ by more than `DRIFT`, and nearly all passes of one must be slower than
    those of the other (Mann & Whitney's statistic), so that wide noise does not pass for drift.
    """
    third = len(passes_ms) // 3
    if third < 2:
        return False
    early, late = passes_ms[:third], passes_ms[-third:]
    if abs(median(late) / median(early) - 1) <= DRIFT:
        return False
    slower = fmean(after > before for before in early for after in late)
    return max(slower, 1 - slower) >= DRIFT_AGREEMENT


def _drawn_pairs(pairs: int, block: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return pair numbers, shape (RESAMPLES, pairs); a block past the end goes on at the start."""
    starts = random.integers(0, pairs, size=(RESAMPLES, -(-pairs // block)))
    numbers = (starts[:, :, None] + np.arange(block)) % pairs
    return numbers.reshape(RESAMPLES, -1)[:, :pairs]


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
