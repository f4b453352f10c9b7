"""Things are timed in turn, each once in every round."""

from collections import Counter
from dataclasses import replace

from tokensearch.measure import Sample, TimingBudget, time_interleaved


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

    time_interleaved(
        recorder.turns, TimingBudget(warmup=0, min_rounds=60, max_rounds=60, seconds=99), seed=0
    )

    assert {"".join(sorted(one)) for one in recorder.rounds(3)} == {"abc"}
    assert len(Counter(recorder.rounds(3))) == 6


def test_rounds_of_warm_up_are_not_counted() -> None:
    recorder = Recorder("ab")

    taken = time_interleaved(
        recorder.turns, TimingBudget(warmup=4, min_rounds=5, max_rounds=5, seconds=99), seed=0
    )

    assert [len(samples) for samples in taken] == [5, 5]
    assert len(recorder.order) == 2 * 9
    assert min(sample.ms for samples in taken for sample in samples) > 10.008


def test_seconds_end_it_but_not_before_the_least() -> None:
    budget = TimingBudget(warmup=0, min_rounds=7, max_rounds=100, seconds=0.05)

    assert len(time_interleaved(Recorder("ab").turns, budget, seed=0)[0]) == 7
    longer = TimingBudget(warmup=0, min_rounds=2, max_rounds=100, seconds=0.25)
    assert len(time_interleaved(Recorder("ab").turns, longer, seed=0)[0]) == 13


def test_it_ends_when_enough_is_known() -> None:
    budget = TimingBudget(warmup=0, min_rounds=8, max_rounds=1000, seconds=99)
    looks: list[int] = []

    def enough(taken: list[list[Sample]]) -> bool:
        looks.append(len(taken[0]))
        return len(taken[0]) >= 20

    taken = time_interleaved(Recorder("ab").turns, budget, seed=0, enough=enough)

    assert len(taken[0]) == looks[-1] >= 20
    assert looks == sorted(set(looks))
    assert looks[0] == 8


def test_somebody_is_told_of_every_round() -> None:
    told: list[tuple[int, float]] = []

    time_interleaved(
        Recorder("ab").turns,
        TimingBudget(warmup=1, min_rounds=3, max_rounds=3, seconds=99),
        seed=0,
        tell=lambda rounds, seconds: told.append((rounds, round(seconds, 2))),
    )

    assert told == [(0, 0.02), (1, 0.04), (2, 0.06), (3, 0.08)]


def test_precision_may_end_it_later_than_the_seconds() -> None:
    budget = TimingBudget(warmup=0, min_rounds=4, first_look=9, max_rounds=100, seconds=99)

    taken = time_interleaved(Recorder("ab").turns, budget, seed=0, enough=lambda _: True)

    assert len(taken[0]) == 9
    hurried = replace(budget, seconds=0.001)
    assert len(time_interleaved(Recorder("ab").turns, hurried, seed=0)[0]) == 4
