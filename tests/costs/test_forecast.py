import numpy as np
import pytest

from tokensearch.costs.forecast import SURE, Forecast
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, mac_share
from tokensearch.records import Comparison, Latency

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=192)


def pruned(keep: int) -> Policy:
    return Policy(DEIT, (Prune(2, keep),))


def machine(policy: Policy) -> float:
    """Reductions are worth less here than multiply-accumulates promise."""
    return float(1.05 * mac_share(policy) ** 0.8)


def taught(counts: range) -> Forecast:
    forecast = Forecast(mac_share, known_error=0.15)
    for keep in counts:
        forecast = forecast.learned(pruned(keep), machine(pruned(keep)))
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
    random = np.random.default_rng(0)
    forecast = Forecast(mac_share, known_error=0.02)
    for keep in range(20, 180, 4):
        noisy = mac_share(pruned(keep)) * float(np.exp(random.normal(0, 0.05)))
        forecast = forecast.learned(pruned(keep), noisy)

    assert forecast.error == pytest.approx(0.05 * np.sqrt(2 / np.pi), rel=0.3)


def test_one_timing_moves_a_good_table_little() -> None:
    forecast = Forecast(mac_share, known_error=0.02).learned(
        pruned(98), 1.2 * mac_share(pruned(98))
    )

    assert mac_share(pruned(98)) < forecast.ratio(pruned(98)) <= 1.2 * mac_share(pruned(98))


def test_the_unreduced_model_is_what_ratios_are_of() -> None:
    forecast = taught(range(20, 180, 16)).learned(Policy(DEIT), 1.1)

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
    timed = 1.1 * predicted

    def weighed(reach: float) -> float:
        passes = Latency((10.0,), 1), Latency((10.0 * timed,), 1)
        low, high = timed * (1 - reach), timed * (1 + reach)
        return forecast.weighed(policy, Comparison(*passes, timed, low, high, 0.95, "faster"))

    assert weighed(0.0) == pytest.approx(timed)
    assert weighed(1.96 * 0.02) == pytest.approx((timed * predicted) ** 0.5, rel=1e-3)
    assert weighed(1.96 * 0.2) == pytest.approx(predicted, rel=2e-3)
