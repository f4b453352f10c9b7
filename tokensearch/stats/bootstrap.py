"""Circular block bootstrap of timing rounds: intervals of ratios and of sums of parts.

Rounds are drawn in runs of neighbours (the blocks of the method), which resemble each other, and
with all that was timed in them. So what falls on all alike cancels (Davison & Hinkley, "Bootstrap
Methods", 1997). Of AR(1) noise (coefficient 0.6) at 60 pairs, drawing pairs singly took 21 % of A/A
comparisons for a difference, drawing them in runs 4 %.

The ends are moved outward, since a bootstrap of few samples is too narrow (Hesterberg, "What
Teachers Should Know About the Bootstrap", 2015): of independent noise at 10 pairs the plain
percentiles took 10 % for a difference, the expanded ones 5 %. A standard error with a t quantile
was tried, and dropped: where passes have two speeds, the median jumps between them and 14 % of A/A
comparisons differed.
"""

from collections.abc import Sequence
from math import cbrt, sqrt
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tokensearch.stats.interval import Interval

LEVEL = 0.95  # nominal coverage of every interval; the field's habit
RESAMPLES = 1000  # from seed to seed the ends then move by 5 to 8 % of the half-width (measured)
# Neighbouring rounds that are more alike than this are told nothing apart by any number of rounds
# that a profile takes.
MOST_ALIKE = 0.95
ROUNDING = 1e-12  # relative: sums of a few hundred passes are off by less

Values = npt.NDArray[np.float64]
Draws = npt.NDArray[np.int64]


def draw_rounds(rounds: int, random: np.random.Generator, *, run: int = 1) -> Draws:
    """Rounds of every resample, (1 + RESAMPLES, rounds); the first row is the rounds themselves.

    `run` neighbours are drawn together.
    """
    starts = random.integers(0, rounds, size=(RESAMPLES, -(-rounds // run)))
    drawn = (starts[:, :, None] + np.arange(run)) % rounds
    return np.vstack([np.arange(rounds), drawn.reshape(RESAMPLES, -1)[:, :rounds]])


def serial_correlation(series: Values) -> float:
    """How alike neighbouring rounds are: the lag-1 autocorrelation, 0 to `MOST_ALIKE`.

    It is averaged over parts, which makes it known well even from a dozen rounds, and corrected for
    its bias, -(1 + 3r) / rounds (Marriott and Pope 1954, Biometrika 41, 390).

    series  (rounds, parts)
    """
    rounds = len(series)
    if rounds < 4:
        return 0.0
    off = series - series.mean(axis=0)
    energy = (off**2).sum(axis=0)
    varying = energy > (ROUNDING * np.abs(series).max(axis=0)) ** 2
    if not varying.any():
        return 0.0
    alike = float(((off[1:] * off[:-1]).sum(axis=0)[varying] / energy[varying]).mean())
    return min(max(0.0, (rounds * alike + 1) / (rounds - 3)), MOST_ALIKE)


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
    levels, level_of = np.unique(passes_ms.sum(axis=1), return_inverse=True)
    places = level_of.astype(np.uint16 if len(levels) <= 2**16 else np.int64)
    order = np.argsort(places[drawn], axis=1, kind="stable")[:, cut : rounds - cut]
    kept = np.take_along_axis(drawn, order, axis=1)
    cells = kept + np.arange(resamples)[:, None] * rounds
    often = np.bincount(cells.ravel(), minlength=resamples * rounds).reshape(resamples, rounds)
    means: Values = (often / kept.shape[1]) @ passes_ms
    return means


def simultaneous_intervals(
    values: Sequence[Values], *, rounds: int, correlation: float = 0.0
) -> list[Interval]:
    """Intervals that hold for all figures at once. Each: row 0 as measured, then resamples.

    `rounds` were drawn singly. If neighbours are alike they say less than as many strangers: means
    of AR(1) noise vary by (1 + r) / (1 - r) more, and its variance is known as from (1 - r^2) /
    (1 + r^2) as many rounds (Bayley and Hammersley 1946). Few rounds make a bootstrap too narrow,
    which is mended by Student's t where it takes the normal distribution (Hesterberg 2015, 5.3).
    """
    if not values:
        return []
    table = np.array(values)
    measured, deviations = table[:, 0], table[:, 1:] - table[:, :1]
    error = deviations.std(axis=1)
    # What only rounds off is constant: it would count as one more figure that varies.
    scale = np.where(error > ROUNDING * np.abs(table).max(), error, np.inf)
    normal_reach = float(np.quantile(np.abs(deviations / scale[:, None]).max(axis=0), LEVEL))
    square = correlation**2
    reach = expand_reach(normal_reach, freedom=rounds * (1 - square) / (1 + square) - 1)
    error *= sqrt((1 + correlation) / (1 - correlation))
    return [
        Interval(float(value), float(value - reach * each), float(value + reach * each))
        for value, each in zip(measured, error, strict=True)
    ]


def expand_reach(z: float, *, freedom: float) -> float:
    """Widen a reach in standard errors as Student's t does for so many degrees of freedom.

    Source: Abramowitz & Stegun 26.7.5, and sqrt(n / (n - 1)) for the bootstrap's own bias
    (Hesterberg 2015, section 5.3). At 1.96 within 1 % of the exact quantile from 3 degrees on; at
    3.3, a reach for many terms at once, 12 % below it at 3 degrees, 2.4 % at 5 and 0.3 % at 9.
    """
    freedom = max(freedom, 1.0)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = z + first / freedom + second / freedom**2 + third / freedom**3
    return t * sqrt((freedom + 1) / freedom)


def run_length(pairs: int) -> int:
    """Neighbouring pairs that are drawn together."""
    return max(1, round(PAIR_RUN_FACTOR * cbrt(pairs)))


# Pairs per run over the cube root of all pairs, the rate of Hall, Horowitz & Jing (1995).
# Measured: at 1.0, AR(1) noise (0.6) gives 8 % false verdicts at 30 pairs, at 1.5 it gives 5 %;
# at 2.0 independent noise gives 6 % at 10 pairs.
PAIR_RUN_FACTOR = 1.5

# Fewest pairs that carry a verdict. Measured on 2000 synthetic A/A comparisons per kind of noise:
# of independent noise (normal, log-normal, two-speed) 10 % was taken for a difference at 8 pairs,
# 5.4 % at 10, and below 4 % from 12 on; of AR(1) noise (0.6) 12 % at 12 pairs, 6 % at 20 and
# 4.8 % at 30.
VERDICT_PAIRS = 12
# Pairs from which the interval covers as it says where noise remembers; with fewer it is widened,
# by this share at `VERDICT_PAIRS`. Measured on 400 A/A comparisons in AR(1) noise (0.6): to miss in
# 5 % it takes 1.44 times the reach at 12 pairs, 1.2 to 1.3 at 16 to 25, and 1.0 from 29 on.
ENOUGH_PAIRS = 30
MOST_WIDER = 0.5
# Pairs of a trial, which a search learns from and no verdict rests on, and how much wider again the
# interval is for each pair below `VERDICT_PAIRS`: 2.2 to 2.5 times the reach is needed at 8 pairs,
# on 600 comparisons as above; with 6 it would take 5 times.
TRIAL_PAIRS = 8
WIDER_PER_PAIR = 0.25

# Passes of few pairs may differ so much that a widened interval would reach below nothing.
LEAST_RATIO = 1e-9

_NORMAL = NormalDist()


def bootstrap_ratio(
    baseline_ms: Sequence[float],
    candidate_ms: Sequence[float],
    *,
    seed: int,
    run: int | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return the interval of median(candidate) / median(baseline), without unit, above 0.

    `run` consecutive pairs are drawn together; None lets it grow with the number of pairs. The
    same samples and seed give the same interval.
    """
    pairs = len(baseline_ms)
    run = run or run_length(pairs)
    drawn = draw_rounds(pairs, np.random.default_rng(seed), run=run)[1:]
    below, above = (_medians(passes_ms, drawn) for passes_ms in (baseline_ms, candidate_ms))
    tail = _expanded_tail((1 - level) / 2, runs=pairs / run)
    low, high = np.quantile(above / below, [tail, 1 - tail])
    measured = float(np.median(candidate_ms) / np.median(baseline_ms))
    wider = _widening(pairs)
    lower = max(LEAST_RATIO, measured - wider * (measured - float(low)))
    return lower, measured + wider * (float(high) - measured)


def _widening(pairs: int) -> float:
    """Return by what factor the reach of so few pairs is too short."""
    many = max(pairs, VERDICT_PAIRS)
    wider = MOST_WIDER * max(0.0, 1 - (many - VERDICT_PAIRS) / (ENOUGH_PAIRS - VERDICT_PAIRS))
    return 1 + wider + WIDER_PER_PAIR * (many - pairs)


def bootstrap_mean(
    values: Values, *, seed: int, groups: Sequence[int] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the mean of values, such as losses of images.

    values  (N,)
    groups  of values that resemble each other, which are drawn together; None: all are strangers
    """
    _, member = np.unique(range(len(values)) if groups is None else groups, return_inverse=True)
    sums, counts = np.bincount(member, weights=values), np.bincount(member)
    drawn = np.random.default_rng(seed).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    tail = _expanded_tail((1 - level) / 2, runs=len(sums))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _medians(passes_ms: Sequence[float], drawn: Draws) -> Values:
    """Return the median of every resample. Sorting short rows is faster than `np.median`."""
    ordered = np.sort(np.asarray(passes_ms, dtype=np.float64)[drawn], axis=1)
    count = ordered.shape[1]
    middle: Values = (ordered[:, (count - 1) // 2] + ordered[:, count // 2]) / 2
    return middle


def _expanded_tail(tail: float, *, runs: float) -> float:
    """Return the tail to cut so that few runs are as wide as Student's t asks for."""
    return _NORMAL.cdf(-expand_reach(_NORMAL.inv_cdf(1 - tail), freedom=runs - 1))
