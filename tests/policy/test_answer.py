"""The rule of the answer, on figures chosen by hand."""

from dataclasses import replace
from typing import Any

import pytest

from tokensearch.errors import PolicyError, TargetError
from tokensearch.policy import Goal, PolicyFigures, RightImages, choose, parse_target
from tokensearch.stats.interval import Interval, paired_difference

IMAGES = 1000
ALL_RIGHT = (1 << IMAGES) - 1
HALF = Goal(parse_target("0.5x"))


def figure(value: float, reach: float) -> Interval:
    return Interval(value, value - reach, value + reach)


def candidate(ratio: float, kl: float, wrong: int = 0, **more: Any) -> PolicyFigures:
    """A policy that is wrong on the first `wrong` images."""
    return PolicyFigures(
        reduces=more.get("reduces", True),
        batch=8,
        ratio=figure(ratio, more.get("reach", 0.01)),
        median_ms=figure(100 * ratio, 1.0),
        value=-kl,
        divergence=figure(kl, 0.1 * kl),
        right=RightImages(IMAGES, (1 << IMAGES) - (1 << wrong)),
        sure=more.get("sure", True),
    )


BASELINE = candidate(1.0, 0.0, reduces=False)
MILD, FAIR, FAST = candidate(0.8, 0.01, 2), candidate(0.45, 0.05, 30), candidate(0.3, 0.0505, 33)
ALL = (FAST, FAIR, MILD, BASELINE)


def test_the_fastest_of_all_that_are_as_good_as_the_best_is_chosen() -> None:
    choice = choose(ALL, HALF)

    assert (choice.index, choice.outcome, choice.as_good) == (0, "met", (0, 1))


def test_what_was_timed_under_doubt_is_no_firm_answer_and_no_firm_miss() -> None:
    fast, slow = (candidate(ratio, 0.01, sure=False) for ratio in (0.3, 0.9))

    assert choose((fast, BASELINE), HALF).outcome == "ambiguous"
    assert choose((slow, BASELINE), HALF).outcome == "ambiguous"


def test_a_better_policy_whose_interval_alone_misses_the_target_is_promising() -> None:
    better, over = candidate(0.495, 0.01), candidate(0.505, 0.001)

    choice = choose((FAST, FAIR, better, over, BASELINE), HALF)

    assert (choice.index, choice.outcome, choice.promising) == (0, "met", (2,))
    assert choose(ALL, HALF).promising == ()


def test_a_baseline_that_may_meet_a_time_is_not_promising() -> None:
    goal = Goal(parse_target("100ms"))

    choice = choose((FAST, BASELINE), goal)

    assert (choice.index, choice.outcome, choice.promising) == (0, "met", ())


def test_a_policy_that_may_miss_the_target_and_is_no_better_is_not_promising() -> None:
    alike = candidate(0.495, 0.0499, 30)

    assert choose((FAST, FAIR, alike, BASELINE), HALF).promising == ()


def test_a_faster_policy_whose_loss_alone_is_open_is_promising_under_a_bound() -> None:
    open_loss = candidate(0.3, 0.095)

    choice = choose((open_loss, FAIR, BASELINE), Goal(max_divergence=0.1))

    assert (choice.index, choice.outcome, choice.promising) == (1, "met", (0,))


def test_where_a_bound_is_kept_by_the_baseline_alone_for_certain_that_is_the_fallback() -> None:
    open_loss = candidate(0.3, 0.095)

    choice = choose((open_loss, BASELINE), Goal(max_divergence=0.1))

    assert (choice.index, choice.outcome, choice.fallback) == (0, "ambiguous", 1)


def test_no_doubt_turns_microseconds_into_seconds() -> None:
    mild = candidate(0.9, 0.01, sure=False)

    assert choose((mild, BASELINE), Goal(parse_target("0.1x"))).outcome == "missed"
    assert choose((mild,), Goal(parse_target("10s"))).outcome == "met"


def test_of_the_doubtful_what_is_likely_to_meet_the_goal_is_named() -> None:
    fast, slow = (candidate(ratio, ratio / 100, sure=False) for ratio in (0.9, 0.3))

    assert choose((fast, slow, BASELINE), HALF).index == 1


@pytest.mark.parametrize(
    ("points", "expected", "outcome"),
    [
        (5.0, FAST, "met"),
        (4.2, FAIR, "met"),
        (1.0, MILD, "met"),
        (0.3, MILD, "ambiguous"),
        (0.1, BASELINE, "unreduced"),
    ],
)
def test_with_a_largest_drop_the_fastest_within_it_by_its_interval_is_chosen(
    points: float, expected: PolicyFigures, outcome: str
) -> None:
    choice = choose(ALL, Goal(max_drop=points / 100))

    assert choice.index is not None
    assert (ALL[choice.index], choice.outcome) == (expected, outcome)


def test_a_largest_divergence_is_held_against_its_interval() -> None:
    assert choose(ALL, Goal(max_divergence=0.06)).index == 0
    assert choose(ALL, Goal(max_divergence=0.02)).index == 2
    assert choose(ALL, Goal(max_divergence=0.0505)).outcome == "met"  # MILD, surely


def test_both_bounds_hold_at_once() -> None:
    both = Goal(parse_target("0.5x"), max_drop=0.01)

    assert choose(ALL, both).outcome == "missed"
    assert choose(ALL, Goal(parse_target("0.9x"), max_drop=0.01)).index == 2


@pytest.mark.parametrize(("drop", "divergence"), [(-0.01, None), (None, float("nan"))])
def test_a_bound_below_zero_or_none_at_all_is_refused(
    drop: float | None, divergence: float | None
) -> None:
    with pytest.raises(TargetError, match="give a number from 0 on"):
        Goal(None, drop, divergence)
    with pytest.raises(TargetError, match="nothing is asked for"):
        Goal()


def test_right_images_are_read_as_they_were_written() -> None:
    right = RightImages(12, 0b101100000001)

    assert RightImages.from_hex(12, right.hex) == right
    assert right.change_from(RightImages(12, 0b111100000000)).value == pytest.approx(0.0)


def test_images_that_show_the_same_thing_count_once_wherever_the_figures_are_read() -> None:
    groups = tuple(image % 100 for image in range(IMAGES))  # ten images each
    wrong = sum(1 << image for image in range(IMAGES) if groups[image] < 2)
    before, after = RightImages(IMAGES, ALL_RIGHT, groups), RightImages(IMAGES, ALL_RIGHT - wrong)

    read = RightImages.from_hex(IMAGES, after.hex, before.groups_hex)

    assert read == replace(after, groups=groups)
    change, alone = read.change_from(before), after.change_from(RightImages(IMAGES, ALL_RIGHT))
    assert change.value == alone.value == -0.02
    assert (change.low, change.high) == pytest.approx(paired_difference(2, 0, 100))
    assert (alone.low, alone.high) == pytest.approx(paired_difference(20, 0, IMAGES))


def test_a_bound_that_holds_for_strangers_is_open_where_images_show_the_same_thing() -> None:
    groups = tuple(image // 10 for image in range(IMAGES))
    baseline, fast = (
        replace(BASELINE, right=RightImages(IMAGES, ALL_RIGHT)),
        replace(FAST, right=RightImages(IMAGES, ALL_RIGHT - (1 << 20) + 1)),
    )
    grouped = [replace(one, right=replace(one.right, groups=groups)) for one in (fast, baseline)]

    assert choose((fast, baseline), Goal(max_drop=0.035)).outcome == "met"
    assert choose(grouped, Goal(max_drop=0.035)).outcome == "ambiguous"


def test_right_images_that_cannot_be_are_refused() -> None:
    with pytest.raises(PolicyError, match="right on image 12 of 11; write the front again"):
        RightImages.from_hex(11, "801")
    with pytest.raises(PolicyError, match="saw 12 and 11 images"):
        RightImages(12, 1).change_from(RightImages(11, 1))
    with pytest.raises(PolicyError, match="has 5 digits of groups for 12 images"):
        RightImages.from_hex(12, "1", "00112")


def test_of_doubtful_policies_far_over_the_target_the_nearest_is_named() -> None:
    far = candidate(0.9, 0.001, sure=False)
    near = candidate(0.62, 0.1, sure=False)

    choice = choose((far, near, BASELINE), HALF)

    assert (choice.index, choice.outcome) == (1, "ambiguous")


def test_a_doubtful_baseline_alone_is_no_answer() -> None:
    baseline = candidate(1.0, 0.0, reduces=False, sure=False)
    slow = candidate(0.6, 0.1)

    assert choose((slow, baseline), Goal(parse_target("30ms"))).outcome == "missed"
