import numpy as np
import pytest

from tokensearch.costs.forecast import SURE, Forecast
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, mac_share
from tokensearch.records.measurements import Comparison, Latency

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)


def pruned(keep: int) -> Policy:
    return Policy(DEIT, (Prune(2, keep),))


def machine(policy: Policy) -> float:
    """Reductions are worth less here than multiply-accumulates promise."""
    return float(1.05 * mac_share(policy) ** 0.8)


def timed(ratio: float, reach: float = 0.0) -> Comparison:
    """A timing whose interval goes so far to both sides, relative to the ratio."""
    passes = Latency((10.0,), 1), Latency((10.0 * ratio,), 1)
    return Comparison(*passes, ratio, ratio * (1 - reach), ratio * (1 + reach), 0.95, "faster")


def noisy(counts: range, *, own: float = 0.0, noise: float) -> Forecast:
    """Taught by timings whose intervals tell their noise, of a machine beside the table."""
    random, forecast = np.random.default_rng(0), Forecast(mac_share, known_error=0.02)
    for keep in counts:
        off = random.normal(0, own) + random.normal(0, noise)
        ratio = mac_share(pruned(keep)) * float(np.exp(off))
        forecast = forecast.learned(pruned(keep), timed(ratio, 1.96 * noise))
    return forecast


def taught(counts: range) -> Forecast:
    forecast = Forecast(mac_share, known_error=0.15)
    for keep in counts:
        forecast = forecast.learned(pruned(keep), timed(machine(pruned(keep))))
    return forecast


def test_before_anything_is_timed_the_table_is_believed() -> None:
    forecast = Forecast(mac_share, known_error=0.15)

    assert forecast.ratio(pruned(98)) == pytest.approx(mac_share(pruned(98)))
    assert forecast.error == 0.15


def test_timings_correct_what_the_table_gets_wrong() -> None:
    forecast = taught(range(20, 180, 16))

    for keep in (30, 75, 101, 150):
        assert forecast.ratio(pruned(keep)) == pytest.approx(machine(pruned(keep)), rel=0.01)
    assert forecast.error < 0.01


def test_the_error_is_that_of_policies_left_out() -> None:
    forecast = noisy(range(20, 180, 4), own=0.05, noise=0.0)

    assert forecast.error == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.3)
    assert forecast.own_error == forecast.error


def test_what_the_timings_noise_adds_is_no_error_of_the_predictions() -> None:
    """In an hour whose timings err by 7 %, a table may be good all the same."""
    good = noisy(range(20, 180, 2), noise=0.07)
    poor = noisy(range(20, 180, 2), own=0.07, noise=0.07)

    assert min(good.error, poor.error) > SURE
    assert good.own_error < SURE < poor.own_error
    assert good.knows(pruned(100))
    assert not poor.knows(pruned(100))
    assert poor.own_error == pytest.approx(0.07 * np.sqrt(2 / np.pi), rel=0.3)


def test_one_timing_moves_a_good_table_little() -> None:
    forecast = Forecast(mac_share, known_error=0.02).learned(
        pruned(98), timed(1.2 * mac_share(pruned(98)))
    )

    assert mac_share(pruned(98)) < forecast.ratio(pruned(98)) <= 1.2 * mac_share(pruned(98))


def test_the_unreduced_model_is_what_ratios_are_of() -> None:
    forecast = taught(range(20, 180, 16)).learned(Policy(DEIT), timed(1.1))

    assert forecast.ratio(Policy(DEIT)) == 1.0
    assert len(forecast.timed) == len(range(20, 180, 16))


def test_among_two_of_the_same_operators_a_further_timing_would_teach_little() -> None:
    forecast = taught(range(110, 116))

    assert forecast.knows(pruned(112))
    assert not forecast.knows(pruned(60))
    assert not forecast.knows(Policy(DEIT, (Pool(2, 112),)))


def test_as_long_as_predictions_are_poor_every_timing_teaches() -> None:
    assert taught(range(60, 62)).error > SURE
    assert not taught(range(60, 62)).knows(pruned(61))


def test_a_timing_is_believed_as_much_as_it_is_surer_than_the_prediction() -> None:
    forecast, policy = Forecast(mac_share, known_error=0.02), pruned(98)
    predicted = forecast.ratio(policy)
    ratio, equal = 1.1 * predicted, 1.96 * 0.02 / np.sqrt(2 / np.pi)  # as wide as the forecast

    assert forecast.weighed(policy, timed(ratio)) == pytest.approx(ratio)
    assert forecast.weighed(policy, timed(ratio, equal)) == pytest.approx(
        (ratio * predicted) ** 0.5
    )
    assert forecast.weighed(policy, timed(ratio, 0.5)) == pytest.approx(predicted, rel=2e-3)


def test_the_margin_is_the_worst_that_a_table_states_until_timings_tell() -> None:
    forecast = Forecast(mac_share, known_error=0.01, known_worst=0.2)

    assert forecast.margin == 0.2
    for keep in range(20, 180, 16):
        forecast = forecast.learned(pruned(keep), timed(mac_share(pruned(keep))))
    assert forecast.margin < 0.02


def test_a_bias_at_one_end_widens_the_margin_beyond_twice_the_mean_error() -> None:
    forecast = Forecast(mac_share, known_error=0.01)
    for keep in range(20, 180, 8):
        ratio = mac_share(pruned(keep)) * (1.3 if keep < 40 else 1.0)
        forecast = forecast.learned(pruned(keep), timed(ratio))

    assert forecast.margin > 2 * forecast.error


def test_a_table_whose_worst_is_large_does_not_stand_in_for_timings() -> None:
    poor = Forecast(mac_share, known_error=0.01, known_worst=0.2)
    good = Forecast(mac_share, known_error=0.01)
    for keep in (97, 98):
        found = timed(mac_share(pruned(keep)))
        poor, good = poor.learned(pruned(keep), found), good.learned(pruned(keep), found)

    assert good.knows(pruned(98))
    assert not poor.knows(pruned(98))
