"""Time a candidate in turn with its baseline, and say which is faster.

Turns are taken pair by pair, in random order within each pair: heat, clocks and other programs
then fall on both alike, and neither always runs in the other's wake.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from random import Random
from statistics import median

from tokensearch.errors import MeasurementError
from tokensearch.measure.cautions import find_cautions
from tokensearch.measure.clock import Clock, Run, warm_device
from tokensearch.measure.machine_monitor import MachineMonitor
from tokensearch.records.comparability import verdict
from tokensearch.records.measurements import Comparison, Conditions, Latency
from tokensearch.stats.bootstrap import LEVEL, VERDICT_PAIRS, ratio_interval

# Warm-up goes on while the latest passes beat the ones before them by more than this share ...
STEADY_SHARE = 0.05  # half of torch.utils.benchmark's limit for a distribution worth quoting
STEADY_PASSES = 3  # fewest whose median one outlier cannot move
WARMUP_LIMIT = 5  # ... but for no more than so many times the warm-up that was asked for

# The interval is looked at anew when the pairs have grown by this share. Looks are rare because
# each is one more chance to stop on a lucky sample, and a bootstrap that leaves the device idle.
LOOK_GROWTH = 0.25

PRECISION = 0.01  # half-width of the ratio's interval: schedules next to each other differ by more


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to time. Whichever limit is reached first ends it."""

    warmup: int  # uncounted passes of each model, at least; 0 for none
    min_pairs: int  # counted before the interval may end it
    max_pairs: int
    seconds: float  # of passes, warm-up included; 12 pairs are taken even beyond
    precision: float = PRECISION  # wanted half-width of the ratio's interval

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise MeasurementError(f"warm-up must be 0 passes or more, got {self.warmup}")
        if not 1 <= self.min_pairs <= self.max_pairs:
            raise MeasurementError(
                f"at least 1 pair must be timed and the most must not be below the least, "
                f"got {self.min_pairs} to {self.max_pairs}"
            )
        for name, value in (("seconds", self.seconds), ("precision", self.precision)):
            if not (isfinite(value) and value > 0):
                raise MeasurementError(f"{name} must be a number above 0, got {value}")


def compare(
    baseline: Run,
    candidate: Run,
    *,
    clock: Clock,
    budget: Budget,
    seed: int = 0,
    watch: MachineMonitor | None = None,
) -> Comparison:
    """Time both in turn until the ratio of their medians is known well enough.

    `seed` decides the order within each pair and the bootstrap; it repeats both, not the times.
    With fewer than `VERDICT_PAIRS` pairs the verdict is "ambiguous", whatever the interval says.
    `watch` sees what else happens on the machine; without it such doubts are not raised.
    """
    session = _Session(baseline, candidate, clock, Random(seed))
    warmup = warm_device(baseline, clock) + session.warm_up(budget)
    if watch is not None:
        watch.start()
    session.time_pairs(budget, partial(_precise, budget=budget, seed=seed, watch=watch))
    found = compare_samples(
        Latency(tuple(session.baseline_ms), warmup),
        Latency(tuple(session.candidate_ms), warmup),
        precision=budget.precision,
        seed=seed,
    )
    return found if watch is None else with_cautions(found, watch.stop())


def with_cautions(comparison: Comparison, conditions: Conditions) -> Comparison:
    """Return a comparison with what the machine was like, and the doubts that follow from it."""
    found = find_cautions(comparison.baseline, comparison.candidate, conditions)
    return replace(comparison, conditions=conditions, cautions=found)


def compare_samples(
    baseline: Latency, candidate: Latency, *, precision: float = PRECISION, seed: int
) -> Comparison:
    """Return what the timings of two prove that ran in turn.

    precision  half-width of the ratio's interval within which two are the same
    """
    low, high = ratio_interval(baseline.passes_ms, candidate.passes_ms, seed=seed)
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


def _precise(
    session: "_Session", *, budget: Budget, seed: int, watch: MachineMonitor | None
) -> bool:
    """Whether the interval is as narrow as was wanted. A good moment to look at the machine."""
    if watch is not None:
        watch.look()
    low, high = ratio_interval(session.baseline_ms, session.candidate_ms, seed=seed)
    return (high - low) / 2 <= budget.precision


@dataclass
class _Session:
    """The counted passes so far, and the time that all passes took by the clock."""

    baseline: Run
    candidate: Run
    clock: Clock
    random: Random
    baseline_ms: list[float] = field(default_factory=list)
    candidate_ms: list[float] = field(default_factory=list)
    spent_ms: float = 0.0

    def warm_up(self, budget: Budget) -> int:
        """Run both in turn until neither speeds up any more; return the passes of each."""
        timed_ms: list[tuple[float, float]] = []
        while len(timed_ms) < budget.warmup or (
            len(timed_ms) < WARMUP_LIMIT * budget.warmup
            and self._seconds < budget.seconds / 2  # the rest belongs to the counted passes
            and not all(_steady(passes_ms) for passes_ms in zip(*timed_ms, strict=True))
        ):
            timed_ms.append(self._pair())
        return len(timed_ms)

    def time_pairs(self, budget: Budget, precise: Callable[["_Session"], bool]) -> None:
        """Count pairs until the interval is precise, or pairs or seconds run out."""
        least = max(budget.min_pairs, VERDICT_PAIRS)
        look = least
        while not self._spent(budget):
            baseline_ms, candidate_ms = self._pair()
            self.baseline_ms.append(baseline_ms)
            self.candidate_ms.append(candidate_ms)
            if len(self.baseline_ms) >= look:
                if precise(self):
                    return
                look = max(look + 1, round(look * (1 + LOOK_GROWTH)))

    @property
    def _seconds(self) -> float:
        return self.spent_ms / 1000

    def _spent(self, budget: Budget) -> bool:
        """Whether pairs or seconds have run out; seconds wait for pairs that prove something."""
        pairs = len(self.baseline_ms)
        return pairs >= budget.max_pairs or (
            pairs >= VERDICT_PAIRS and self._seconds >= budget.seconds
        )

    def _pair(self) -> tuple[float, float]:
        """Time each once, in random order; return baseline and candidate."""
        if self.random.random() < 0.5:
            baseline_ms = self._time_ms(self.baseline, "baseline")
            return baseline_ms, self._time_ms(self.candidate, "candidate")
        candidate_ms = self._time_ms(self.candidate, "candidate")
        return self._time_ms(self.baseline, "baseline"), candidate_ms

    def _time_ms(self, run: Run, who: str) -> float:
        elapsed_ms = self.clock.time_ms(run)
        if not (isfinite(elapsed_ms) and elapsed_ms > 0):
            raise MeasurementError(
                f"a pass of the {who} took {elapsed_ms} ms by the clock; "
                f"it must take a finite time above 0"
            )
        self.spent_ms += elapsed_ms
        return elapsed_ms


def _steady(passes_ms: tuple[float, ...]) -> bool:
    """Whether the latest passes are hardly faster than the ones before them."""
    if len(passes_ms) < 2 * STEADY_PASSES:
        return False
    before = median(passes_ms[-2 * STEADY_PASSES : -STEADY_PASSES])
    return median(passes_ms[-STEADY_PASSES:]) > (1 - STEADY_SHARE) * before
