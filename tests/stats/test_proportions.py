import math
from fractions import Fraction
from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokensearch.stats.interval import design_effect, paired_difference
from tokensearch.stats.proportions import mcnemar, wilson

TOSSES = list(product((0, 1), repeat=10))


# Newcombe 1998, Statistics in Medicine 17, table I, method 3.
@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    right: int, images: int, low: float, high: float
) -> None:
    assert wilson(right, images) == pytest.approx((low, high), abs=5e-5)


@given(images=st.integers(1, 5000), share=st.floats(0, 1), level=st.floats(0.5, 0.999))
def test_wilson_holds_what_was_observed_and_stays_a_share(
    images: int, share: float, level: float
) -> None:
    right = round(share * images)

    low, high = wilson(right, images, level=level)

    assert 0 <= low <= right / images <= high <= 1


@given(images=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_ends_where_the_score_test_just_rejects(images: int, share: float) -> None:
    right = round(share * images)
    z = NormalDist().inv_cdf(0.975)

    for end in wilson(right, images):
        deviation = abs(right / images - end)
        assert deviation == pytest.approx(z * math.sqrt(end * (1 - end) / images), abs=1e-7)


@given(images=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_is_the_same_for_right_and_wrong(images: int, share: float) -> None:
    right = round(share * images)

    low, high = wilson(right, images)
    mirrored = wilson(images - right, images)

    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize("heads", range(11))
def test_mcnemar_counts_outcomes_of_ten_tosses_as_extreme(heads: int) -> None:
    away = abs(heads - 5)

    extreme = sum(abs(sum(tosses) - 5) >= away for tosses in TOSSES)

    assert mcnemar(heads, 10 - heads) == pytest.approx(extreme / len(TOSSES))


@settings(max_examples=30)  # exact sums of thousands of digits
@given(lost=st.integers(0, 2000), won=st.integers(0, 2000))
def test_mcnemar_is_exact_to_nine_digits(lost: int, won: int) -> None:
    tail = sum(math.comb(lost + won, k) for k in range(min(lost, won) + 1))

    exact = min(1.0, float(Fraction(2 * tail, 2 ** (lost + won))))

    assert mcnemar(lost, won) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_mcnemar_finds_nothing_where_models_never_differ() -> None:
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_stands_many_images() -> None:
    # The normal approximation with continuity correction is good to three digits here.
    z = (abs(5150 - 4850) - 1) / math.sqrt(10_000)

    assert mcnemar(4850, 5150) == pytest.approx(2 * NormalDist().cdf(-z), rel=1e-3)


def test_paired_difference_of_a_worked_example() -> None:
    # 21 images, 7 of them right for the baseline alone and 1 for the candidate alone:
    # (2 - 8) / 23 +- 1.95996 sqrt((10 / 23 - (6 / 23)^2) / 23) = -0.26087 +- 0.24749.
    assert paired_difference(7, 1, 21) == pytest.approx((-0.50836, -0.01338), abs=1e-5)


@given(lost=st.integers(0, 300), won=st.integers(0, 300), same=st.integers(0, 3000))
def test_paired_difference_turns_with_the_models(lost: int, won: int, same: int) -> None:
    images = lost + won + same + 1

    low, high = paired_difference(lost, won, images)
    turned = paired_difference(won, lost, images)

    assert turned == pytest.approx((-high, -low))
    assert -1 <= low < high <= 1
    assert low <= (won - lost) / images <= high


def test_models_that_never_differ_may_still_differ_a_little() -> None:
    low, high = paired_difference(0, 0, 100)

    assert low == -high
    assert 0.02 < high < 0.04


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.02), (0.15, 0.05), (0.01, 0.10)])
def test_paired_difference_covers_the_truth_as_often_as_it_says(lost: float, won: float) -> None:
    """Add up the chances of all outcomes of 60 images whose interval holds the truth."""
    images, covered = 60, 0.0
    for x in range(images + 1):
        for y in range(images + 1 - x):
            low, high = paired_difference(x, y, images)
            if low <= won - lost <= high:
                ways = math.comb(images, x) * math.comb(images - x, y)
                covered += ways * lost**x * won**y * (1 - lost - won) ** (images - x - y)

    assert covered > 0.94


def test_equal_groups_count_as_one_and_strangers_as_themselves() -> None:
    assert design_effect([1, 1, 1, 0, 0, 0], [4, 4, 4, 5, 5, 5]) == pytest.approx(3)
    assert design_effect([1, 0, 1, 0], [1, 2, 3, 4]) == 1
    assert design_effect([1, 1, 1, 1], [1, 1, 2, 2]) == 2  # nothing tells them apart


def test_with_the_design_effect_an_interval_of_grouped_images_covers_the_truth() -> None:
    random, groups, each, share = np.random.default_rng(0), 100, 5, 0.9
    owner = np.repeat(np.arange(groups), each)
    plain = honest = 0

    for _ in range(400):
        # Half of the groups' images are right or wrong together.
        together = random.random(groups)[owner] < share
        right = np.where(random.random(groups * each) < 0.5, together, random.random(500) < share)
        effect = design_effect(right.astype(float).tolist(), owner.tolist())
        hits = int(right.sum())
        low, high = wilson(hits, 500)
        plain += low <= share <= high
        low, high = wilson(hits / effect, 500 / effect)
        honest += low <= share <= high

    assert plain / 400 < 0.92
    assert honest / 400 >= 0.93
