"""Things are timed in turn, each once in every round."""

from collections import Counter

import pytest

from tokensearch.errors import MeasurementError
from tokensearch.measure import Effort, Sample, time_interleaved


class Recorder:
    """Turns that take 10 ms each, and the order in which they were taken."""

    def __init__(self, names: str) -> None:
        self.order: list[str] = []
        self.turns = [self._turn(name) for name in names]

    def _turn(self, name: str) -> object:
        def turn() -> Sample:
            self.order.append(name)
            return Sample(10.0 + len(self.order) / 1000, {})

        return turn

    def rounds(self, size: int) -> list[str]:
        return ["".join(self.order[i : i + size]) for i in range(0, len(self.order), size)]


def test_every_round_holds_each_once_in_random_order() -> None:
    recorder = Recorder("abc")

    time_interleaved(recorder.turns, Effort(warmup=0, least=60, most=60, seconds=99), seed=0)

    assert {"".join(sorted(one)) for one in recorder.rounds(3)} == {"abc"}
    assert len(Counter(recorder.rounds(3))) == 6


def test_rounds_of_warm_up_are_not_counted() -> None:
    recorder = Recorder("ab")

    taken = time_interleaved(recorder.turns, Effort(warmup=4, least=5, most=5, seconds=99), seed=0)

    assert [len(samples) for samples in taken] == [5, 5]
    assert len(recorder.order) == 2 * 9
    assert min(sample.ms for samples in taken for sample in samples) > 10.008


def test_seconds_end_it_but_not_before_the_least() -> None:
    effort = Effort(warmup=0, least=7, most=100, seconds=0.05)

    assert len(time_interleaved(Recorder("ab").turns, effort, seed=0)[0]) == 7
    longer = Effort(warmup=0, least=2, most=100, seconds=0.25)
    assert len(time_interleaved(Recorder("ab").turns, longer, seed=0)[0]) == 13


def test_it_ends_when_enough_is_known() -> None:
    effort = Effort(warmup=0, least=8, most=1000, seconds=99)
    looks: list[int] = []

    def enough(taken: list[list[Sample]]) -> bool:
        looks.append(len(taken[0]))
        return len(taken[0]) >= 20

    taken = time_interleaved(Recorder("ab").turns, effort, seed=0, enough=enough)

    assert len(taken[0]) == looks[-1] >= 20
    assert looks == sorted(set(looks))
    assert looks[0] == 8


def test_somebody_is_told_of_every_round() -> None:
    told: list[tuple[int, float]] = []

    time_interleaved(
        Recorder("ab").turns,
        Effort(warmup=1, least=3, most=3, seconds=99),
        seed=0,
        tell=lambda rounds, seconds: told.append((rounds, round(seconds, 2))),
    )

    assert told == [(0, 0.02), (1, 0.04), (2, 0.06), (3, 0.08)]


@pytest.mark.parametrize("limits", [(-1, 1, 1, 1.0), (0, 0, 1, 1.0), (0, 3, 2, 1.0), (0, 1, 1, 0)])
def test_an_effort_that_measures_nothing_is_refused(limits: tuple[int, int, int, float]) -> None:
    with pytest.raises(MeasurementError, match="least"):
        Effort(*limits)
