"""The Gaussian process over policies: what it predicts, and that it is the textbook's."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest

from tests.search.test_local import DEIT, draw_policy, log_loss
from tokensearch.policy import Policy, Prune
from tokensearch.search.sampler.surrogate import (
    AMPLITUDE,
    LENGTHS,
    MAX_STD_INFLATION,
    NOISE,
    Features,
    Surrogate,
    Values,
    features,
    fit_trend,
)


def kernel(some: Sequence[Features], others: Sequence[Features]) -> Values:
    """Matern 3/2 of the root of mean squared differences, group by group."""
    distance = np.zeros((len(some), len(others)))
    for name, length in zip(("counts", "operators", "flags"), LENGTHS, strict=True):
        left, right = (np.array([getattr(f, name) for f in side]) for side in (some, others))
        distance += np.square(left[:, None] - right[None]).mean(axis=2) / length**2
    scaled = np.sqrt(3 * distance)
    return np.asarray(AMPLITUDE**2 * (1 + scaled) * np.exp(-scaled))


def textbook_trend(
    observed: Sequence[Features], losses: Values, new: Sequence[Features]
) -> tuple[Values, Values]:
    """A line through all but the baseline, by the pseudo-inverse."""
    rows, others = (
        np.array([[1.0, policy.counts.mean()] for policy in some]) for some in (observed, new)
    )
    line = np.linalg.pinv(rows[1:]) @ losses[1:]
    return rows @ line, others @ line


def textbook_prediction(
    observed: Sequence[Features], losses: Values, noise: Values, new: Sequence[Features]
) -> tuple[Values, Values]:
    """Rasmussen & Williams (2006), equations 2.25, 2.26 and 5.12, by the inverse."""
    trend, trend_of_new = textbook_trend(observed, losses, new)
    scale = (losses - trend)[1:].std()  # the baseline is the first
    y = (losses - trend) / scale
    inverse = np.linalg.inv(
        kernel(observed, observed) + np.diag(np.square(noise / scale) + NOISE**2)
    )
    across = kernel(new, observed)
    variance = AMPLITUDE**2 - np.einsum("ij,jk,ik->i", across, inverse, across)
    left_out = (np.square(inverse @ y) / np.diag(inverse))[1:]
    inflation = np.clip(np.sqrt(left_out.mean()), 1.0, MAX_STD_INFLATION)
    mean = trend_of_new + scale * (across @ inverse @ y)
    return mean, scale * inflation * np.sqrt(np.maximum(variance, 1e-8))


@pytest.mark.parametrize("observations", [8, 60, 120])
def test_predictions_are_those_of_the_textbook(observations: int) -> None:
    random = Random(observations)
    policies = [Policy(DEIT), *(draw_policy(random) for _ in range(observations + 39))]
    losses = np.array([log_loss(policy) for policy in policies[:observations]])
    noise = np.random.default_rng(0).uniform(0, 0.5, observations)
    known, new = np.split(np.array([features(p) for p in policies], dtype=object), [observations])

    surrogate = Surrogate()
    surrogate.fit(list(known), losses, noise)
    mean, deviation = surrogate.predict(list(new))

    wanted_mean, wanted_deviation = textbook_prediction(list(known), losses, noise, list(new))
    np.testing.assert_allclose(mean, wanted_mean, rtol=0, atol=1e-9)
    np.testing.assert_allclose(deviation, wanted_deviation, rtol=0, atol=1e-9)


def test_schedules_that_it_has_not_seen_are_in_order() -> None:
    random = Random(0)
    known = [draw_policy(random) for _ in range(80)]
    new = [draw_policy(random) for _ in range(100)]
    surrogate = Surrogate()
    surrogate.fit(
        [features(policy) for policy in known],
        np.array([log_loss(policy) for policy in known]),
        np.zeros(80),
    )

    mean, deviation = surrogate.predict([features(policy) for policy in new])

    truth = np.array([log_loss(policy) for policy in new])
    assert np.corrcoef(np.argsort(np.argsort(mean)), np.argsort(np.argsort(truth)))[0, 1] > 0.9
    assert np.mean(np.abs(truth - mean) < 2 * deviation) > 0.8


def test_a_policy_near_the_observed_has_a_smaller_deviation_than_one_far_away() -> None:
    near = [Policy(DEIT, (Prune(3, keep),)) for keep in range(60, 180, 10)]
    surrogate = Surrogate()
    surrogate.fit(
        [features(policy) for policy in near],
        np.array([log_loss(policy) for policy in near]),
        np.zeros(12),
    )

    _, deviation = surrogate.predict([features(near[5]), features(Policy(DEIT, (Prune(0, 2),)))])

    assert deviation[0] < 0.2 * deviation[1]


def test_what_leaves_almost_nothing_is_expected_to_lose_more_than_anything_observed() -> None:
    mild = [Policy(DEIT, (Prune(block, keep),)) for block in (3, 6, 9) for keep in (100, 130, 160)]
    losses = np.array([log_loss(policy) for policy in mild])
    surrogate = Surrogate()
    surrogate.fit([features(policy) for policy in mild], losses, np.zeros(9))

    mean, _ = surrogate.predict([features(Policy(DEIT, (Prune(0, 4),)))])

    assert mean[0] > losses.max()


def test_observations_that_lose_less_the_deeper_they_cut_have_no_trend() -> None:
    depths = np.array([-0.1, -0.2, -0.3])

    slope, offset = fit_trend(depths, np.array([-1.0, -2.0, -3.0]))

    assert (slope, offset) == (0.0, -2.0)


def test_losses_that_are_all_alike_leave_the_surrogate_unsure_of_others() -> None:
    alike = [Policy(DEIT, (Prune(3, keep),)) for keep in range(100, 180, 10)]
    surrogate = Surrogate()
    surrogate.fit([features(policy) for policy in alike], np.full(8, -6.9), np.zeros(8))

    _, deviation = surrogate.predict([features(Policy(DEIT, (Prune(0, 2),)))])

    assert deviation[0] > 0.1
