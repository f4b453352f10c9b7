"""Time a candidate in turn with its baseline, and say which is faster."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import quantiles
from typing import Any

from tokensearch.measure.cautions import find_cautions
from tokensearch.measure.clock import Clock, Run, warm_device
from tokensearch.measure.interleaved import (
    PRECISION,
    InterleavedTimer,
    Sample,
    TellRounds,
    TimingBudget,
    make_pass_turn,
    tell_nobody,
)
from tokensearch.measure.machine_monitor import MachineMonitor
from tokensearch.records.comparability import verdict
from tokensearch.records.measurements import Caution, Comparison, Conditions, Latency
from tokensearch.stats.bootstrap import LEVEL, VERDICT_PAIRS, bootstrap_ratio
from tokensearch.stats.interval import Interval

NOTED = "ratio", "low", "high", "level", "verdict"  # of a comparison, in a policy's evidence


def compare(
    baseline: Run,
    candidate: Run,
    *,
    clock: Clock,
    budget: TimingBudget,
    seed: int = 0,
    watch: MachineMonitor | None = None,
    tell: TellRounds = tell_nobody,
) -> Comparison:
    """Time both in turn until the ratio of their medians is known well enough.

    `seed` decides the order within each pair and the bootstrap; it repeats both, not the times.
    With fewer than `VERDICT_PAIRS` pairs the verdict is "ambiguous", whatever the interval says.
    `watch` sees what else happens on the machine; without it such cautions are not raised.
    `tell` is called after every counted round, with their number and the seconds of all.
    """
    timer = InterleavedTimer(
        (
            make_pass_turn(baseline, clock, name="baseline"),
            make_pass_turn(candidate, clock, name="candidate"),
        ),
        seed=seed,
    )
    warmup = warm_device(baseline, clock) + timer.warm_up_until_steady(budget)

    def enough(samples: list[list[Sample]]) -> bool:
        if watch is not None:  # between two rounds is a good moment to look at the machine
            watch.look()
        low, high = bootstrap_ratio(*map(_passes_ms, samples), seed=seed)
        return len(samples[0]) >= VERDICT_PAIRS and (high - low) / 2 <= budget.precision

    if watch is not None:
        watch.start()
    timer.count_rounds(budget, enough=enough, tell=tell)
    comparison = compare_samples(
        *(Latency(_passes_ms(samples), warmup) for samples in timer.samples),
        precision=budget.precision,
        seed=seed,
    )
    return comparison if watch is None else add_cautions(comparison, watch.stop())


def add_cautions(comparison: Comparison, conditions: Conditions) -> Comparison:
    """Return a comparison with what the machine was like, and the cautions that follow from it."""
    cautions = find_cautions(comparison.baseline, comparison.candidate, conditions)
    return replace(comparison, conditions=conditions, cautions=cautions)


def compare_samples(
    baseline: Latency, candidate: Latency, *, precision: float = PRECISION, seed: int
) -> Comparison:
    """Return what the timings of two show that ran in turn.

    precision  half-width of the ratio's interval within which two are the same
    """
    low, high = bootstrap_ratio(baseline.passes_ms, candidate.passes_ms, seed=seed)
    enough = len(baseline.passes_ms) >= VERDICT_PAIRS
    return Comparison(
        baseline=baseline,
        candidate=candidate,
        ratio=candidate.median_ms / baseline.median_ms,
        low=low,
        high=high,
        level=LEVEL,
        verdict=verdict(low, high, precision) if enough else "ambiguous",
        cautions=find_cautions(baseline, candidate),
    )


@lru_cache(maxsize=1024)
def median_interval(latency: Latency) -> Interval:
    """Bootstrap the median, in milliseconds: its ratio to a clock that never varies."""
    low, high = bootstrap_ratio((1.0,) * len(latency.passes_ms), latency.passes_ms, seed=0)
    return Interval(latency.median_ms, low, high)


def candidate_ms(comparison: Comparison) -> Interval:
    """Return the candidate's median with an interval that a drift of the machine widens.

    Turns taken with the baseline cancel a drift in the ratio, and not in milliseconds. Then half
    of the passes are all that is known.
    """
    latency, median = comparison.candidate, median_interval(comparison.candidate)
    if not {Caution.DRIFT, Caution.THROTTLED} & set(comparison.cautions):
        return median
    low, _, high = quantiles(latency.passes_ms, n=4, method="inclusive")
    return Interval(median.value, min(low, median.low), max(high, median.high))


def note_comparison(comparison: Comparison) -> dict[str, Any]:
    """Return what a policy's evidence says of a timing, beside its medians."""
    median = candidate_ms(comparison)
    return {
        **{name: getattr(comparison, name) for name in NOTED},
        "low_ms": median.low,
        "high_ms": median.high,
    }


def _passes_ms(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(sample.ms for sample in samples)
