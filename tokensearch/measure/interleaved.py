"""The one timing loop: several things in turn, in rounds of random order, until precise.

Every round times each thing once. What drifts then falls on all alike, nothing always runs in the
wake of the same other, and sample i of each is of one round, so that differences can be paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from random import Random
from statistics import median

from tokensearch.errors import MeasurementError
from tokensearch.measure.clock import Clock, Run
from tokensearch.measure.phase_timer import PhaseTimer
from tokensearch.records.profile import Scope
from tokensearch.stats.bootstrap import VERDICT_PAIRS

# The samples are looked at anew when their rounds have grown by this share. Looks are rare because
# each is one more chance to stop on a lucky sample, and a bootstrap that leaves the device idle.
LOOK_GROWTH = 0.25

# Warm-up goes on while the latest passes beat the ones before them by more than this share ...
STEADY_SHARE = 0.05  # half of torch.utils.benchmark's limit for a distribution worth quoting
STEADY_PASSES = 3  # fewest whose median one outlier cannot move
WARMUP_LIMIT = 5  # ... but for no more than so many times the warm-up that was asked for

PRECISION = 0.01  # half-width of the ratio's interval: schedules next to each other differ by more


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingBudget:
    """How long to time. Whichever limit is reached first ends it.

    Raises:
        MeasurementError: A limit allows nothing to be timed.
    """

    warmup: int  # uncounted rounds, at least; 0 for none
    min_rounds: int = VERDICT_PAIRS  # counted even beyond the seconds
    max_rounds: int
    seconds: float  # of passes, warm-up included
    first_look: int = 0  # rounds before precision may end it, where more than `min_rounds`
    precision: float = PRECISION  # wanted half-width of a ratio's interval

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise MeasurementError(f"warm-up must be 0 rounds or more, got {self.warmup}")
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise MeasurementError(
                f"at least 1 round must be timed and the most must not be below the least, "
                f"got {self.min_rounds} to {self.max_rounds}"
            )
        for name, value in (("seconds", self.seconds), ("precision", self.precision)):
            if not (isfinite(value) and value > 0):
                raise MeasurementError(f"{name} must be a number above 0, got {value}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One pass: the whole, and the parts it was split into, if it was."""

    ms: float
    parts_ms: Mapping[Scope, float]


Turn = Callable[[], Sample]
TellRounds = Callable[[int, float], None]  # rounds counted so far, and the seconds of all passes


def tell_nobody(_rounds: int, _seconds: float) -> None:
    """Keep it to oneself."""


def make_pass_turn(run: Run, clock: Clock, *, name: str = "model") -> Turn:
    """Return a turn that times a whole pass of `run`, of the model that errors call `name`."""

    def turn() -> Sample:
        elapsed_ms = clock.time_ms(run)
        if not (isfinite(elapsed_ms) and elapsed_ms > 0):
            raise MeasurementError(
                f"a pass of the {name} took {elapsed_ms} ms by the clock; "
                f"it must take a finite time above 0"
            )
        return Sample(elapsed_ms, {})

    return turn


def make_phase_turn(run: Run, timer: PhaseTimer) -> Turn:
    """Return a turn that times a pass of `run` split by its ranges."""

    def turn() -> Sample:
        parts_ms = timer.split(run)
        return Sample(sum(parts_ms.values()), parts_ms)

    return turn


class InterleavedTimer:
    """Takes turns in rounds. Keeps the counted samples, and the time that all passes took."""

    def __init__(self, turns: Sequence[Turn], *, seed: int) -> None:
        self._turns, self._random, self._spent_ms = turns, Random(seed), 0.0
        self.samples: list[list[Sample]] = [[] for _ in turns]  # as many of each turn

    @property
    def seconds(self) -> float:
        """Seconds of all passes so far, warm-up included."""
        return self._spent_ms / 1000

    def run_round(self) -> list[Sample]:
        """Take every turn once, in random order; return the samples in the order of the turns."""
        samples = {
            index: self._turns[index]()
            for index in self._random.sample(range(len(self._turns)), len(self._turns))
        }
        self._spent_ms += sum(sample.ms for sample in samples.values())
        return [samples[index] for index in range(len(self._turns))]

    def warm_up_until_steady(self, budget: TimingBudget) -> int:
        """Run uncounted rounds until no turn speeds up any more; return how many."""
        rounds: list[list[Sample]] = []
        while len(rounds) < budget.warmup or (
            len(rounds) < WARMUP_LIMIT * budget.warmup
            and self.seconds < budget.seconds / 2  # the rest belongs to the counted passes
            and not all(_is_steady(samples) for samples in zip(*rounds, strict=True))
        ):
            rounds.append(self.run_round())
        return len(rounds)

    def count_rounds(
        self,
        budget: TimingBudget,
        *,
        enough: Callable[[list[list[Sample]]], bool],
        tell: TellRounds = tell_nobody,
    ) -> None:
        """Count rounds until `enough` says so, or the budget ends; arguments as below."""
        look = max(budget.first_look, budget.min_rounds)
        for rounds in range(1, budget.max_rounds + 1):
            for counted, sample in zip(self.samples, self.run_round(), strict=True):
                counted.append(sample)
            tell(rounds, self.seconds)
            if rounds >= budget.min_rounds and self.seconds >= budget.seconds:
                return
            if rounds >= look:
                if enough(self.samples):
                    return
                look = max(look + 1, round(look * (1 + LOOK_GROWTH)))


def time_interleaved(
    turns: Sequence[Turn],
    budget: TimingBudget,
    *,
    seed: int,
    enough: Callable[[list[list[Sample]]], bool] = lambda _: False,
    tell: TellRounds = tell_nobody,
) -> list[list[Sample]]:
    """Return the samples of each turn, as many for all; `enough` may end it before the budget.

    The warm-up has as many rounds as the budget says. `tell` is called after every round with the
    number of counted rounds, and the seconds that all took.
    """
    timer = InterleavedTimer(turns, seed=seed)
    for _ in range(budget.warmup):
        timer.run_round()
        tell(0, timer.seconds)
    timer.count_rounds(budget, enough=enough, tell=tell)
    return timer.samples


def _is_steady(samples: Sequence[Sample]) -> bool:
    """Whether the latest passes are hardly faster than the ones before them."""
    if len(samples) < 2 * STEADY_PASSES:
        return False
    passes_ms = [sample.ms for sample in samples]
    before = median(passes_ms[-2 * STEADY_PASSES : -STEADY_PASSES])
    return median(passes_ms[-STEADY_PASSES:]) > (1 - STEADY_SHARE) * before
