from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.costs.machine import SPEC, SyntheticMachine, slope
from tokensearch.costs.curves import Halves, fit_curve, shrink_ratios
from tokensearch.costs.fit import SplitPass, fit_line, samples_of
from tokensearch.costs.prices import fit_price, solve_non_negative
from tokensearch.costs.table import CheckedPrediction
from tokensearch.policy import Policy, Pool, Prune


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_non_negative_least_squares_are_the_best_of_all_subsets(seed: int, terms: int) -> None:
    random = np.random.default_rng(seed)
    rows, wanted = random.normal(size=(20, terms)), random.normal(size=20)
    rows *= 10.0 ** random.integers(-3, 4, size=terms)  # counts, and their products

    best, least = np.zeros(terms), float(np.square(wanted).sum())
    for chosen in product([False, True], repeat=terms):
        coefficients = np.zeros(terms)
        columns = rows[:, np.array(chosen)]
        coefficients[np.array(chosen)] = np.linalg.lstsq(columns, wanted, rcond=None)[0]
        left = float(np.square(rows @ coefficients - wanted).sum())
        if (coefficients >= 0).all() and left < least:
            best, least = coefficients, left

    assert rows @ solve_non_negative(rows, wanted) == pytest.approx(rows @ best, abs=1e-9)


def test_ratios_that_noise_explains_are_moved_onto_the_smooth_curve() -> None:
    random = np.random.default_rng(0)
    error = np.full(200, 0.02)

    moved = shrink_ratios(1 + error * random.standard_normal(200), error)

    assert np.abs(moved - 1).mean() < 0.005


def test_steps_that_noise_does_not_explain_stay() -> None:
    steps = 1 + 0.1 * (np.arange(100) % 16 > 7)

    assert shrink_ratios(steps, np.full(100, 0.002))[[12, 28, 44]] == pytest.approx(1.1, abs=0.002)


def test_outliers_do_not_move_a_price() -> None:
    n_in = np.arange(10, 60)
    n_out = n_in * np.arange(50) % 9
    ms = 1 + 0.1 * n_in + 0.2 * n_out
    ms[::7] *= 9

    price = fit_price("prune drop", n_in, n_out, ms)

    assert price.of(100, 20) == pytest.approx(1 + 10 + 4)


def test_two_counts_that_were_met_once_make_a_curve() -> None:
    found = fit_curve("attention", Halves([0, 1], [10, 11], [1.0, 1.5]), blocks=2)

    assert found.counts == (10, 11)


def test_samples_of_a_pass_add_up_to_it() -> None:
    policy = Policy(SPEC, (Prune(1, 40), Pool(3, 30)), proportional_attention=True)
    parts_ms = SyntheticMachine(slope).parts_ms(policy, floor=False)

    samples = samples_of(SplitPass(policy, floor=False, parts_ms=parts_ms))

    assert sum(ms for _, ms in samples) == pytest.approx(sum(parts_ms.values()))


def test_two_steps_of_one_block_share_their_phases_and_give_no_sample() -> None:
    policy = Policy(SPEC, (Prune(1, 40), Pool(1, 30)))
    parts_ms = SyntheticMachine(slope).parts_ms(policy, floor=False)

    names = {part.name for part, _ in samples_of(SplitPass(policy, False, parts_ms))}

    assert "score class_attention" in names
    assert not names & {"prune drop", "pool bipartite"}


def test_where_noise_has_fewer_tokens_take_longer_no_fixed_cost_is_believed() -> None:
    trials = [
        CheckedPrediction(f"sha256:{n:064x}", parts, 20.0 - parts, 50)
        for n, parts in enumerate((10.0, 8.0, 6.0, 4.0))
    ]

    fixed_ms, scale = fit_line(trials)

    parts, ms = np.array([10.0, 8.0, 6.0, 4.0]), np.array([10.0, 12.0, 14.0, 16.0])
    assert fixed_ms == 0.0
    assert scale == pytest.approx((parts / ms).sum() / np.square(parts / ms).sum())


def test_where_launches_take_more_than_all_of_a_pass_parts_are_believed_as_measured() -> None:
    trials = [
        CheckedPrediction(f"sha256:{n:064x}", parts, 5.0, 50, 9.0)
        for n, parts in enumerate((300.0, 200.0, 100.0))
    ]

    assert fit_line(trials) == (0.0, 1.0)
