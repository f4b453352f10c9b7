"""Intervals cover what they promise, and verdicts follow from them."""

from math import sqrt

import numpy as np
import pytest

from tests.measure.fakes import noisy
from tokensearch.records.comparability import verdict
from tokensearch.stats.bootstrap import (
    RESAMPLES,
    TRIAL_PAIRS,
    VERDICT_PAIRS,
    bootstrap_mean,
    bootstrap_ratio,
    expand_reach,
    simultaneous_intervals,
)


@pytest.mark.parametrize("pairs", [12, 30, 60])
def test_equal_models_are_told_apart_no_more_often_than_the_level_allows(pairs: int) -> None:
    random = np.random.default_rng(pairs)
    trials = 300

    excluded = 0
    for _ in range(trials):
        baseline_ms, candidate_ms = np.exp(0.05 * random.standard_normal((2, pairs)))
        low, high = bootstrap_ratio(baseline_ms, candidate_ms, seed=0)
        excluded += not low <= 1 <= high

    assert excluded / trials <= 0.05


@pytest.mark.parametrize("each", [1, 4])
def test_a_mean_of_groups_is_missed_no_more_often_than_the_level_allows(each: int) -> None:
    random, groups, trials = np.random.default_rng(each), 40, 300
    owner = np.repeat(np.arange(groups), each)

    missed = 0
    for _ in range(trials):
        losses = 0.8 * random.standard_normal(groups)[owner]
        losses += 0.6 * random.standard_normal(groups * each)
        low, high = bootstrap_mean(losses, seed=0, groups=owner if each > 1 else None)
        missed += not low <= 0 <= high

    assert missed / trials <= 0.07


@pytest.mark.parametrize("pairs", [TRIAL_PAIRS, VERDICT_PAIRS])
def test_few_pairs_cover_in_noise_that_remembers(pairs: int) -> None:
    """AR(1) noise of 0.6: without widening one in eight was taken for a difference at 12 pairs."""
    random = np.random.default_rng(7)
    trials = 300

    excluded = 0
    for _ in range(trials):
        noise = random.standard_normal((2, pairs))
        for at in range(1, pairs):
            noise[:, at] = 0.6 * noise[:, at - 1] + 0.8 * noise[:, at]
        low, high = bootstrap_ratio(*np.exp(0.03 * noise), seed=0)
        excluded += not low <= 1 <= high

    assert excluded / trials <= 0.08  # 5 % asked, with the noise of 300 trials


def test_noise_that_both_share_hardly_widens_the_interval() -> None:
    random = np.random.default_rng(0)
    own, other = 1 + 0.002 * random.standard_normal((2, 60))
    shared = np.exp(0.05 * random.standard_normal(60))

    together = np.ptp(bootstrap_ratio(own * shared, other * shared, seed=0))
    apart = np.ptp(bootstrap_ratio(own * shared, other * np.roll(shared, 31), seed=0))

    assert together < apart / 2


def test_the_same_samples_and_seed_give_the_same_interval() -> None:
    script = noisy(4.0, seed=1)
    samples = [[next(script) for _ in range(30)] for _ in range(2)]

    assert bootstrap_ratio(*samples, seed=5) == bootstrap_ratio(*samples, seed=5)
    assert bootstrap_ratio(*samples, seed=5) != bootstrap_ratio(*samples, seed=6)


def test_the_interval_of_noiseless_passes_is_the_ratio() -> None:
    assert bootstrap_ratio([4.0] * 12, [3.0] * 12, seed=0) == (0.75, 0.75)


def test_figures_that_only_round_off_widen_no_interval() -> None:
    noise = np.random.default_rng(0).standard_normal((61, RESAMPLES + 1))
    varying, rounded = 5.0 + noise[0], 100.0 + 1e-14 * noise[1:]

    alone = simultaneous_intervals([varying], rounds=20)
    among = simultaneous_intervals([varying, *rounded], rounds=20)

    assert among[0] == alone[0]
    assert among[1].high - among[1].low < 1e-12


@pytest.mark.parametrize(("freedom", "expected"), [(3, 3.182), (5, 2.571), (9, 2.262), (29, 2.045)])
def test_a_reach_grows_as_the_tables_of_student_say(freedom: int, expected: float) -> None:
    own_bias = sqrt((freedom + 1) / freedom)

    assert expand_reach(1.96, freedom=freedom) == pytest.approx(own_bias * expected, rel=0.01)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.90, 0.99, "faster"),
        (1.01, 1.10, "slower"),
        (0.99, 1.005, "same"),
        (0.981, 1.019, "same"),
        (0.97, 1.005, "ambiguous"),
        (0.90, 1.00, "ambiguous"),
        (1.00, 1.03, "ambiguous"),
    ],
)
def test_a_verdict_follows_from_the_interval(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, precision=0.01) == expected


@pytest.mark.parametrize("low", np.linspace(0.95, 1.05, 41))
def test_reaching_the_precision_always_gives_an_answer(low: float) -> None:
    assert verdict(low, low + 0.0399, precision=0.02) != "ambiguous"


def test_a_ratio_of_few_passes_that_differ_widely_is_above_nothing() -> None:
    baseline_ms = [10.0, 60.0, 11.0, 12.0, 55.0, 10.0, 13.0, 80.0]
    candidate_ms = [50.0, 8.0, 9.0, 8.0, 60.0, 9.0, 70.0, 8.0]

    low, high = bootstrap_ratio(baseline_ms, candidate_ms, seed=0)

    assert 0 < low < high
