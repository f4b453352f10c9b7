"""Reasons to distrust a timing, found in its passes and in what happened on the machine meanwhile.

Pure functions. What explains a wide spread, a drift or a step, is named instead of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np
import numpy.typing as npt

from tokensearch.records.comparability import DRIFT, baseline_disagrees, separated
from tokensearch.records.measurements import Caution, Comparison, Conditions, Latency
from tokensearch.stats.bootstrap import ENOUGH_PAIRS, VERDICT_PAIRS

ENOUGH_PASSES = ENOUGH_PAIRS  # fewest without a caution
SLOW_START = 1.5  # first pass against the median: lazy initialisation costs more than noise does
WIDE_SPREAD = 0.10  # quartile distance over median: torch.utils.benchmark's _IQR_WARN_THRESHOLD

# A step is a run of passes, at least this share of them inside and outside, at another speed.
# Measured on 300 synthetic baselines of 30, 60 and 150 passes per kind: of independent noise
# (log-normal to 10 %, two-speed, outliers) and of ramps 0.3 % or less are taken for a step, of
# steps by 10 to 30 % at least 98 % are; of AR(1) noise (0.6, 3 %) 4 % at 30 passes, none at 60.
STEP_PART = 0.25
STEP = 0.05  # half of the spread that is wide; smaller ones are told by `has_drift`
STEP_PASSES = 20  # fewest of which a quarter is more than a handful
STEP_AGREEMENT = 0.95  # as `AGREEMENT`, but of the best of many runs
# Two speeds must explain the passes so much better than a line, which with noise is near a step.
STEP_SCATTER = 0.9

# What taking turns with the baseline does not cancel: work of others costs short and long passes
# the same milliseconds (policies of 0.27x and 0.31x were timed at 0.85x and 0.80x beside it).
# Few passes decide nothing where they carry no verdict; from there on their interval is wider.
DECIDING = frozenset({Caution.BUSY})

BUSY = 0.10  # share of the usable cores' time: on two of them, a fifth of one
COARSE_TICKS = 100  # a pass of fewer ticks of the clock cannot show one percent

Passes = npt.NDArray[np.float64]


def find_cautions(
    baseline: Latency, candidate: Latency, conditions: Conditions | None = None
) -> tuple[Caution, ...]:
    """Return the reasons to distrust a comparison of two latencies; empty when there are none."""
    both = (baseline, candidate)
    stepped = has_speed_step(baseline.passes_ms)
    drifted = not stepped and has_drift(baseline.passes_ms)
    checks = {
        Caution.SLOW_START: any(one.passes_ms[0] > SLOW_START * one.median_ms for one in both),
        Caution.WIDE_SPREAD: not (stepped or drifted)
        and any(one.spread_ms > WIDE_SPREAD * one.median_ms for one in both),
        Caution.DRIFT: drifted,
        Caution.THROTTLED: stepped or (conditions is not None and bool(conditions.gpu_throttled)),
        Caution.FEW_PASSES: any(len(one.passes_ms) < ENOUGH_PASSES for one in both),
        Caution.BUSY: conditions is not None and _busy(conditions),
        Caution.COARSE_CLOCK: conditions is not None
        and any(one.median_ms < COARSE_TICKS * conditions.tick_ms for one in both),
    }
    return tuple(caution for caution, holds in checks.items() if holds)


def add_self_comparison_caution(comparison: Comparison) -> Comparison:
    """Return the comparison of a model with itself, with a caution if a difference was found."""
    if not baseline_disagrees(comparison):
        return comparison
    return replace(comparison, cautions=(*comparison.cautions, Caution.UNLIKE_ITSELF))


def deciding_cautions(comparison: Comparison) -> tuple[Caution, ...]:
    """Return the cautions that leave no firm answer to whether a ratio is within a limit."""
    passes = min(len(comparison.baseline.passes_ms), len(comparison.candidate.passes_ms))
    decide = DECIDING | ({Caution.FEW_PASSES} if passes < VERDICT_PAIRS else set())
    return tuple(caution for caution in comparison.cautions if caution in decide)


def has_drift(passes_ms: Sequence[float]) -> bool:
    """Whether the last third of the passes left the first behind, beyond noise and `DRIFT`."""
    third = len(passes_ms) // 3
    if third < 2:
        return False
    early, late = passes_ms[:third], passes_ms[-third:]
    return abs(median(late) / median(early) - 1) > DRIFT and separated(early, late)


def has_speed_step(passes_ms: Sequence[float]) -> bool:
    """Whether some run of passes went at another speed than the rest, and not by and by."""
    passes = np.asarray(passes_ms, dtype=np.float64)
    if len(passes) < STEP_PASSES:
        return False
    run, above = _most_apart(passes)
    inside, outside = passes[run], np.delete(passes, run)
    low, high = sorted((float(np.median(inside)), float(np.median(outside))))
    if high / low - 1 <= STEP or max(above, 1 - above) < STEP_AGREEMENT:
        return False
    numbers = np.arange(len(passes))
    line = passes - np.polyval(np.polyfit(numbers, passes, 1), numbers)
    return _scatter(inside) + _scatter(outside) < STEP_SCATTER * float(np.abs(line).sum())


def _most_apart(passes: Passes) -> tuple[slice, float]:
    """Return the run that differs most from the rest, and the share of pairs in which it is slower.

    Mann & Whitney's statistic of every run, by sums of ranks; runs may end in the middle, as in
    *circular binary segmentation* (Olshen et al. 2004), so that a dip is found as well.
    """
    count, ordered = len(passes), np.sort(passes)
    ranks = (np.searchsorted(ordered, passes) + np.searchsorted(ordered, passes, "right") + 1) / 2
    sums = np.concatenate([[0.0], np.cumsum(ranks)])
    first, last = np.triu_indices(count + 1)
    inside = last - first
    allowed = (inside >= STEP_PART * count) & (inside <= (1 - STEP_PART) * count)
    first, last, inside = first[allowed], last[allowed], inside[allowed]
    pairs = inside * (count - inside)
    above = (sums[last] - sums[first] - inside * (inside + 1) / 2) / pairs
    best = int(np.argmax(np.abs(above - 0.5) * np.sqrt(pairs)))
    return slice(int(first[best]), int(last[best])), float(above[best])


def _scatter(passes: Passes) -> float:
    """Sum of distances from the median."""
    return float(np.abs(passes - np.median(passes)).sum())


def _busy(conditions: Conditions) -> bool:
    """Whether others had much of the processor, or were on the GPU."""
    return (conditions.others or 0.0) > BUSY or (conditions.gpu_processes or 0) > 0
