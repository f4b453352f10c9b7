"""The answer is timed again beside what it is compared with, until it is settled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests.search.test_finalists import BASELINE, HALF, finalist, timing
from tests.search.tiny import Quiet
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy
from tokensearch.records.measurements import Caution, Comparison, Latency
from tokensearch.search.finalists.finalist import ConfirmedPolicy, select_answer
from tokensearch.search.finalists.result import name_promising
from tokensearch.search.finalists.side_by_side import TRIES, Settled, settle


class Sessions:
    """Stands in for a clock: what each session says of the policies it is asked for."""

    def __init__(self, *ratios: dict[int, float], cautions: Sequence[tuple[Caution, ...]] = ()):
        self.ratios, self.cautions = ratios, cautions
        self.asked: list[list[int]] = []

    def __call__(
        self, policies: Sequence[Policy], budget: TimingBudget, **_: Any
    ) -> tuple[Comparison, ...]:
        number = len(self.asked)
        self.asked.append([policy.patch_tokens_per_block[1] for policy in policies])
        ratios = self.ratios[min(number, len(self.ratios) - 1)]
        doubts = self.cautions[number] if number < len(self.cautions) else ()
        return tuple(replace(timing(ratios[keep]), cautions=doubts) for keep in self.asked[-1])


def settled(sessions: Sessions, *finalists: ConfirmedPolicy) -> Settled:
    return settle(
        [BASELINE, *finalists], HALF, batch=8, time=sessions, seconds=1.0, listener=Quiet()
    )


def outcome(done: Settled) -> tuple[int | None, str]:
    answer = select_answer(done.finalists, HALF, batch=8)
    return answer.policy and answer.policy.trial.number, answer.outcome


MINE = finalist(8, 0.45, 96)
PRESET = finalist(7, 0.44, 90, origin="tome-r13")
DRAWN = finalist(6, 0.4, 80, origin="random")
SLOW = finalist(12, 0.8, 97)


def test_the_answer_a_preset_and_a_random_one_are_timed_in_one_session() -> None:
    sessions = Sessions({8: 0.46, 7: 0.45, 6: 0.41})

    done = settled(sessions, MINE, PRESET, DRAWN, SLOW)

    assert [set(asked) for asked in sessions.asked] == [{8, 7, 6}]
    again = {f.trial.number: f for f in done.finalists}
    assert again[8].comparison.ratio == 0.46
    assert again[8].earlier == MINE.comparison
    assert again[12] == SLOW


def test_what_is_better_and_may_meet_the_target_is_timed_beside_the_answer() -> None:
    better = finalist(11, 0.495, 98)
    sessions = Sessions({8: 0.45, 11: 0.488})

    done = settled(sessions, MINE, better, SLOW)

    assert set(sessions.asked[0]) == {8, 11}
    assert outcome(done) == (11, "met")


def test_only_what_was_timed_beside_the_answer_is_named_as_likely_better() -> None:
    better, other = finalist(11, 0.49, 98, reach=0.02), finalist(13, 0.495, 98, kl=0.005)
    apart = replace(other, comparison=replace(other.comparison, baseline=Latency((11.0,), 1)))

    named = name_promising(select_answer([BASELINE, MINE, better], HALF, batch=8))

    assert named == better.schedule_hash
    assert name_promising(select_answer([BASELINE, MINE, apart], HALF, batch=8)) is None


def test_an_answer_that_misses_the_target_the_second_time_gives_way() -> None:
    other = finalist(5, 0.41, 93)
    sessions = Sessions({8: 0.51, 5: 0.41})

    done = settled(sessions, MINE, other)

    assert [asked[0] for asked in sessions.asked] == [8, 5]
    assert outcome(done) == (5, "met")


def test_a_machine_that_is_busy_every_time_gives_no_firm_answer() -> None:
    sessions = Sessions({8: 0.45}, cautions=[(Caution.BUSY,)] * TRIES)

    done = settled(sessions, MINE)

    assert len(sessions.asked) == TRIES
    assert outcome(done) == (8, "ambiguous")


def test_a_machine_that_is_busy_once_is_asked_again() -> None:
    sessions = Sessions({8: 0.45}, cautions=[(Caution.BUSY,)])

    assert outcome(settled(sessions, MINE)) == (8, "met")
    assert len(sessions.asked) == 2


def test_what_was_timed_too_slow_under_doubt_is_timed_again_before_the_target_is_missed() -> None:
    busy = replace(MINE, comparison=replace(timing(0.85), cautions=(Caution.BUSY,)))
    sessions = Sessions({8: 0.45})

    assert outcome(settled(sessions, busy)) == (8, "met")


def test_timings_that_contradict_confirmed_evidence_leave_no_firm_miss() -> None:
    slowed = replace(MINE, comparison=timing(0.85), earlier=timing(0.27))
    sessions = Sessions({8: 0.84})

    assert outcome(settled(sessions, slowed)) == (8, "ambiguous")


def test_where_all_surely_miss_the_target_nothing_is_timed_again() -> None:
    sessions = Sessions({})

    assert outcome(settled(sessions, SLOW)) == (None, "missed")
    assert sessions.asked == []


def test_where_the_baseline_is_the_answer_nothing_is_timed_again() -> None:
    sessions, whole = Sessions({}), replace(HALF, target=None, max_drop=0.0)

    settle([BASELINE], whole, batch=8, time=sessions, seconds=1.0, listener=Quiet())

    assert sessions.asked == []


def test_without_time_for_a_session_what_was_confirmed_stands() -> None:
    sessions = Sessions({})

    done = settle(
        [BASELINE, MINE],
        HALF,
        batch=8,
        time=sessions,
        seconds=1.0,
        listener=Quiet(),
        may_repeat=lambda: False,
    )

    assert sessions.asked == []
    assert outcome(done) == (8, "met")
