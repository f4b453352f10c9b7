"""Which trials are confirmed."""

from tests.search.test_finalists import BASELINE, HALF, finalist, trial
from tokensearch.front import Point
from tokensearch.policy import Goal, parse_target
from tokensearch.search.finalists.selection import RankedTrial, find_overlooked, select_finalists
from tokensearch.search.time_plan import LEAST_FINALISTS


def place(keep: int, ratio: float, right: int, origin: str = "sampler") -> RankedTrial:
    return RankedTrial(trial(keep, ratio, right, origin), Point(right / 100, ratio))


def test_finalists_are_the_front_the_best_near_the_target_a_preset_and_the_unreduced_model() -> (
    None
):
    best = [
        place(16, 1.0, 98, "none"),
        place(8, 0.49, 97),
        place(7, 0.48, 96),
        place(6, 0.5, 90, "tome-r13"),
        place(5, 0.9, 85),
        place(2, 0.2, 80),
    ]

    assert {one.number for one in select_finalists(best, HALF, target_ratio=0.5, off=0.02)} == {
        16,
        2,
        8,
        7,
        6,
    }


def test_better_ones_just_over_the_target_do_not_crowd_out_those_under_it() -> None:
    over = [place(9 + n, 0.501 + n / 1000, 99 - n) for n in range(5)]

    chosen = select_finalists(
        [*over, place(16, 1.0, 94, "none"), place(3, 0.499, 50)], HALF, target_ratio=0.5, off=0.02
    )

    assert 3 in {one.number for one in chosen}


def test_the_first_finalists_hold_a_spare_well_under_the_target_and_no_control() -> None:
    """Of three finalists two were a control and one that came out at 0.53x: nothing met 0.5x."""
    best = [
        place(16, 1.0, 98, "none"),
        place(9, 0.499, 97),
        place(8, 0.495, 97),
        place(7, 0.48, 97, "random-topk-0.7"),
        place(6, 0.42, 95),
        place(2, 0.2, 80),
    ]

    chosen = select_finalists(best, HALF, target_ratio=0.5, off=0.02)

    assert [one.number for one in chosen][:3] == [16, 8, 6]


def test_what_seems_better_than_the_answer_is_confirmed_too() -> None:
    best = [place(9, 0.6, 97), place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]
    confirmed = [BASELINE, finalist(4, 0.3, 90)]

    found = find_overlooked(best, confirmed, HALF, batch=8, target_ratio=0.5, off=0.02)

    assert found is not None
    assert found.number == 8  # 9 is too slow


def test_nothing_is_overlooked_once_the_best_that_may_meet_the_target_is_the_answer() -> None:
    best = [place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]
    late, good = finalist(8, 0.55, 96), finalist(7, 0.48, 95)

    assert (
        find_overlooked(best, [BASELINE, late, good], HALF, batch=8, target_ratio=0.5, off=0.02)
        is None
    )


def test_where_all_confirmed_ones_miss_the_target_the_next_best_is_confirmed() -> None:
    best = [place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]

    found = find_overlooked(
        best, [BASELINE, finalist(8, 0.55, 96)], HALF, batch=8, target_ratio=0.5, off=0.02
    )

    assert found is not None
    assert found.number == 7


def test_after_one_that_fell_short_the_next_is_to_be_surely_fast_enough() -> None:
    best = [place(8, 0.49, 96), place(7, 0.495, 95), place(5, 0.48, 94), place(4, 0.3, 90)]

    found = find_overlooked(
        best, [BASELINE, finalist(8, 0.5, 96)], HALF, batch=8, target_ratio=0.5, off=0.02
    )

    assert found is not None
    assert found.number == 5


def test_a_doubtful_answer_does_not_end_the_confirming() -> None:
    best = [place(8, 0.49, 96), place(5, 0.47, 94)]
    doubtful = finalist(8, 0.495, 96, reach=0.01)

    found = find_overlooked(best, [BASELINE, doubtful], HALF, batch=8, target_ratio=0.5, off=0.02)

    assert found is not None
    assert found.number == 5


def test_where_the_unreduced_model_is_fast_enough_nothing_else_is_confirmed() -> None:
    lucky, whole = place(8, 0.9, 99), parse_target("1x")

    assert (
        find_overlooked([lucky], [BASELINE], Goal(whole), batch=8, target_ratio=1.0, off=0.02)
        is None
    )


def test_a_published_schedule_that_surely_meets_the_target_is_confirmed_beside_one_that_may() -> (
    None
):
    near, sure = place(9, 0.505, 97, "tome-r13"), place(6, 0.46, 60, "topk-0.7")
    mine = [place(8 - n, 0.45 - n / 100, 96 - n) for n in range(2)]

    chosen = select_finalists([near, *mine, sure], HALF, target_ratio=0.5, off=0.02)

    assert {"tome-r13", "topk-0.7"} <= {one.origin for one in chosen}


def test_a_published_schedule_is_among_the_few_that_there_is_time_to_confirm() -> None:
    """Of eight finalists none was published, so that nothing said whether the search was needed."""
    mine = [place(8 - n, 0.45 - n / 100, 96 - n) for n in range(6)]
    slower = place(10, 0.8, 97, "tome-r8")

    for ratio in (0.49, 0.6):  # the second does not meet the target, and is the nearest to it
        preset = place(9, ratio, 80, "tome-r13")
        best = [place(16, 1.0, 98, "none"), slower, *mine, preset]
        chosen = select_finalists(best, HALF, target_ratio=0.5, off=0.01)
        assert "tome-r13" in [one.origin for one in chosen[:LEAST_FINALISTS]]
