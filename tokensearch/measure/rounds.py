"""Time several things in turn: rounds in random order, each thing once in every round.

What drifts then falls on all alike, and sample i of each is of one round, so that differences can
be paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tokensearch.errors import MeasurementError
from tokensearch.measure.clock import Clock, Run
from tokensearch.measure.phase_timer import PhaseTimer
from tokensearch.records.profile import Place

LOOK_GROWTH = 1.25  # rounds between two looks at the samples grow by this: a look is not free


@dataclass(frozen=True, slots=True)
class Sample:
    """One pass: the whole, and the parts it was split into, if it was."""

    ms: float
    parts_ms: Mapping[Place, float]


Turn = Callable[[], Sample]


def whole_pass_turn(run: Run, clock: Clock) -> Turn:
    """A turn of whole passes by the clock."""
    return lambda: Sample(clock.time_ms(run), {})


def phase_turn(run: Run, stamps: PhaseTimer) -> Turn:
    """A turn of passes that are split by their ranges."""

    def turn() -> Sample:
        parts_ms = stamps.split(run)
        return Sample(sum(parts_ms.values()), parts_ms)

    return turn


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to go on. Whichever limit is reached first ends it."""

    warmup: int  # uncounted rounds
    least: int  # counted rounds, even beyond the seconds
    most: int
    seconds: float  # of passes, warm-up included

    def __post_init__(self) -> None:
        if not (self.warmup >= 0 and 1 <= self.least <= self.most and self.seconds > 0):
            raise MeasurementError(f"{self} must have rounds and seconds above 0, least first")


def time_interleaved(
    turns: Sequence[Turn],
    effort: Effort,
    *,
    seed: int,
    enough: Callable[[list[list[Sample]]], bool] = lambda _: False,
    tell: Callable[[int, float], None] = lambda *_: None,
) -> list[list[Sample]]:
    """Return the samples of each turn, as many for all; `enough` may end it before the effort.

    `tell` hears after every round how many have been counted, and the seconds that all took.
    """
    random, spent_ms = Random(seed), 0.0
    taken: list[list[Sample]] = [[] for _ in turns]
    look = float(effort.least)
    for number in range(effort.warmup + effort.most):
        for place in random.sample(range(len(turns)), len(turns)):
            sample = turns[place]()
            spent_ms += sample.ms
            if number >= effort.warmup:
                taken[place].append(sample)
        rounds = len(taken[0])
        tell(rounds, spent_ms / 1000)
        if rounds < effort.least:
            continue
        if spent_ms >= 1000 * effort.seconds:
            break
        if rounds >= look:
            if enough(taken):
                break
            look *= LOOK_GROWTH
    return taken
