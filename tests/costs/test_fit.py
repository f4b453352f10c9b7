import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression
from sklearn.linear_model import LinearRegression

from tests.costs.machine import SPEC, SyntheticMachine, slope
from tokensearch.costs.curves import Halves, curve, isotonic, shrunk
from tokensearch.costs.fit import Split, samples_of
from tokensearch.costs.prices import non_negative, priced
from tokensearch.policy import Policy, Pool, Prune


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0.1, 9)), min_size=1, max_size=30))
def test_the_isotonic_fit_is_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    values, weights = map(np.array, zip(*pairs, strict=True))

    assert isotonic(values, weights) == pytest.approx(
        isotonic_regression(values, sample_weight=weights), abs=1e-9
    )


@given(st.integers(0, 10_000))
def test_non_negative_least_squares_are_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, wanted = random.normal(size=(20, 4)), random.normal(size=20)

    reference = LinearRegression(positive=True, fit_intercept=False).fit(rows, wanted)

    assert non_negative(rows, wanted) == pytest.approx(reference.coef_, abs=1e-8)


def test_ratios_that_noise_explains_are_moved_onto_the_smooth_curve() -> None:
    random = np.random.default_rng(0)
    error = np.full(200, 0.02)

    moved = shrunk(1 + error * random.standard_normal(200), error)

    assert np.abs(moved - 1).mean() < 0.005


def test_steps_that_noise_does_not_explain_stay() -> None:
    steps = 1 + 0.1 * (np.arange(100) % 16 > 7)

    assert shrunk(steps, np.full(100, 0.002))[[12, 28, 44]] == pytest.approx(1.1, abs=0.002)


def test_outliers_do_not_move_a_price() -> None:
    n_in = np.arange(10, 60)
    n_out = n_in * np.arange(50) % 9
    ms = 1 + 0.1 * n_in + 0.2 * n_out
    ms[::7] *= 9

    price = priced("prune drop", n_in, n_out, ms)

    assert price.of(100, 20) == pytest.approx(1 + 10 + 4)


def test_two_counts_that_were_met_once_make_a_curve() -> None:
    found = curve("attention", Halves([0, 1], [10, 11], [1.0, 1.5]), blocks=2)

    assert found.counts == (10, 11)


def test_samples_of_a_pass_add_up_to_it() -> None:
    policy = Policy(SPEC, (Prune(1, 40), Pool(3, 30)), proportional_attention=True)
    parts_ms = SyntheticMachine(slope).parts_ms(policy, floor=False)

    samples = samples_of(Split(policy, floor=False, parts_ms=parts_ms))

    assert sum(ms for _, ms in samples) == pytest.approx(sum(parts_ms.values()))


def test_two_steps_of_one_block_share_their_phases_and_give_no_sample() -> None:
    policy = Policy(SPEC, (Prune(1, 40), Pool(1, 30)))
    parts_ms = SyntheticMachine(slope).parts_ms(policy, floor=False)

    names = {part.name for part, _ in samples_of(Split(policy, False, parts_ms))}

    assert "score class_attention" in names
    assert not names & {"prune drop", "pool bipartite"}
