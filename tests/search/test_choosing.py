"""Which trials are confirmed."""

from tests.search.test_finalists import HALF, UNREDUCED, finalist, trial
from tokensearch.front import Point
from tokensearch.search.choosing import Placed, choose, overlooked


def place(keep: int, ratio: float, right: int, origin: str = "sampler") -> Placed:
    return Placed(trial(keep, ratio, right, origin), Point(right / 100, ratio))


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

    assert {one.number for one in choose(best, limit=0.5)} == {16, 2, 8, 7, 6}


def test_better_ones_just_over_the_target_do_not_crowd_out_those_under_it() -> None:
    over = [place(9 + n, 0.501 + n / 1000, 99 - n) for n in range(5)]

    chosen = choose([*over, place(16, 1.0, 94, "none"), place(3, 0.499, 50)], limit=0.5)

    assert 3 in {one.number for one in chosen}


def test_what_seems_better_than_the_answer_is_confirmed_too() -> None:
    best = [place(9, 0.6, 97), place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]
    confirmed = [UNREDUCED, finalist(4, 0.3, 90)]

    found = overlooked(best, confirmed, HALF, batch=8)

    assert found is not None
    assert found.number == 8  # 9 is too slow


def test_nothing_is_overlooked_once_the_best_that_may_meet_the_target_is_the_answer() -> None:
    best = [place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]
    late, good = finalist(8, 0.55, 96), finalist(7, 0.48, 95)

    assert overlooked(best, [UNREDUCED, late, good], HALF, batch=8) is None


def test_where_all_confirmed_ones_miss_the_target_the_next_best_is_confirmed() -> None:
    best = [place(8, 0.49, 96), place(7, 0.48, 95), place(4, 0.3, 90)]

    found = overlooked(best, [UNREDUCED, finalist(8, 0.55, 96)], HALF, batch=8)

    assert found is not None
    assert found.number == 7
