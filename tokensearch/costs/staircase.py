"""The staircase of a machine: token counts that cost the same, and where the price steps up.

Counts are patch tokens, as a policy keeps them.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import hypot

import numpy as np

from tokensearch.costs.parts import ATTENTION, MLP
from tokensearch.costs.prices import Floats, Ints
from tokensearch.costs.table import CostTable
from tokensearch.records.measurements import Cell

# Counts on one tread cost the same within this share: less would drown in any policy's latency.
SAME = 0.01
# A step is real when it is so many standard errors high. A tread is flat when its two halves are
# closer to each other, by so many, than the average slope of the machine would set them apart.
BEYOND_NOISE = 3.0


@dataclass(frozen=True, slots=True)
class Tread:
    """Neighbouring counts at which a block costs the same."""

    first: int  # patch tokens
    last: int  # the most for the same price
    ms: float  # of a block
    error_ms: float
    step_ms: float  # to the next tread; 0 for the last
    real: bool  # whether, beyond noise, the tread is flat and ends there


@dataclass(frozen=True, slots=True)
class Staircase:
    """What a whole usual block costs, by patch tokens that enter it and stay."""

    cell: Cell  # in which it was swept
    counts: tuple[int, ...]
    measured_ms: tuple[float, ...]
    error_ms: tuple[float, ...]
    ms: tuple[float, ...]  # nearest that never falls
    treads: tuple[Tread, ...]

    @property
    def good_counts(self) -> tuple[int, ...]:
        """Counts worth stopping at: the most tokens for the price, before a step up.

        The full count is one; on a machine without steps, it is the only one.
        """
        return tuple(one.last for one in self.treads if one.real or one is self.treads[-1])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The real treads in words, widest first."""
        wide = sorted((one for one in self.treads if one.real), key=lambda it: it.first / it.last)
        return tuple(describe_equal_cost(one.first, one.last) for one in wide)


def describe_equal_cost(fewer: int, more: int) -> str:
    """Say that some patch tokens cost as much as more of them.

    >>> describe_equal_cost(1, 12)
    '1 patch token costs as much as 12 here'
    """
    tokens = "patch token costs" if fewer == 1 else "patch tokens cost"
    return f"{fewer:,} {tokens} as much as {more:,} here"


def block_costs(table: CostTable) -> dict[int, float]:
    """Return the milliseconds of a usual block, by patch tokens that enter it and stay."""
    halves, scale = (table.curve(ATTENTION), table.curve(MLP)), table.calibration.scale
    counts = np.arange(1, table.model.patch_tokens + 1)
    first, second = (np.interp(counts, half.counts, half.ms) for half in halves)
    ms: Floats = scale * (first + second)
    return dict(zip(counts.tolist(), ms.tolist(), strict=True))


def fit_staircase(table: CostTable) -> Staircase:
    """Fit a staircase to the costs of a block."""
    from scipy.optimize import isotonic_regression

    halves, scale = (table.curve(ATTENTION), table.curve(MLP)), table.calibration.scale
    every = block_costs(table)
    counts = sorted({*halves[0].counts, *halves[1].counts} & every.keys())
    ms = np.array([every[count] for count in counts])
    off = np.array([scale * hypot(*(half.error_of(count) for half in halves)) for count in counts])
    fit = isotonic_regression(ms, weights=1 / np.square(off)).x
    return Staircase(
        table.cell,
        tuple(counts),
        tuple(ms.tolist()),
        tuple(off.tolist()),
        tuple(fit.tolist()),
        _treads(counts, fit, ms, off),
    )


def _treads(counts: list[int], fit: Floats, ms: Floats, errors: Floats) -> tuple[Tread, ...]:
    """Cut the fit where it has risen beyond `SAME`, and beyond noise, since the tread began."""
    starts = [0]
    for index, level in enumerate(fit):
        began, noise = fit[starts[-1]], hypot(errors[starts[-1]], errors[index])
        if level - began > max(SAME * began, BEYOND_NOISE * noise):
            starts.append(index)
    spans = [slice(*ends) for ends in pairwise([*starts, len(counts)])]
    means = [_mean(fit[span], errors[span]) for span in spans]
    slope = float(fit[-1] - fit[0]) / max(1, counts[-1] - counts[0])
    treads = []
    for index, (span, (level, error)) in enumerate(zip(spans, means, strict=True)):
        upper, above = means[min(index + 1, len(means) - 1)]
        first, last = counts[span][0], counts[span][-1]
        ends = last == counts[-1] or upper - level > BEYOND_NOISE * hypot(error, above)
        real = ends and _flat(np.array(counts[span]), ms[span], errors[span], slope)
        treads.append(Tread(first, last, level, error, upper - level, real=real))
    return tuple(treads)


def _flat(counts: Ints, ms: Floats, errors: Floats, slope: float) -> bool:
    """Whether the halves of a tread cost the same, and on a slope would not, beyond noise."""
    half = len(counts) // 2
    if half == 0:
        return False
    (low, error), (high, other) = _mean(ms[:half], errors[:half]), _mean(ms[-half:], errors[-half:])
    expected = slope * float(counts[-half:].mean() - counts[:half].mean())
    rise = high - low
    return rise <= SAME * low and expected - rise > BEYOND_NOISE * hypot(error, other)


def _mean(ms: Floats, errors: Floats) -> tuple[float, float]:
    """Mean weighted by precision, and its standard error."""
    weights = 1 / np.square(errors)
    return float(np.average(ms, weights=weights)), float(1 / np.sqrt(weights.sum()))
