"""What stopped early is extrapolated from policies that went on over the same images."""

from math import log
from typing import get_args

import numpy as np
import pytest

from tokensearch.policy import Objective, best_value
from tokensearch.search.early_stopping import (
    FINEST_LOSS,
    LEAST_LOSS,
    NOISE_WITHOUT_NEIGHBOURS,
    LossGrowth,
    extrapolate_loss,
    to_log_loss,
    value_from_log_loss,
)

IMAGES, FIRST = 256, 32


def growths(policies: int, seed: int = 0) -> list[tuple[float, float]]:
    """Log losses on the first images and on all, of policies whose images are alike hard."""
    random = np.random.default_rng(seed)
    hardness = random.lognormal(0, 2, IMAGES)
    losses = random.lognormal(-6, 1, policies)[:, None] * hardness
    losses = losses * random.lognormal(0, 0.3, losses.shape)
    return [
        (log(one[:FIRST].mean() + FINEST_LOSS), log(one.mean() + FINEST_LOSS)) for one in losses
    ]


def test_the_extrapolated_loss_is_nearer_than_that_of_the_first_images() -> None:
    pairs = growths(60)
    known = [LossGrowth(first, whole - first) for first, whole in pairs[:30]]

    bare = np.mean([abs(whole - first) for first, whole in pairs[30:]])
    found = np.mean(
        [abs(whole - extrapolate_loss(first, known).log_loss) for first, whole in pairs[30:]]
    )

    assert found < 0.5 * bare


def test_the_error_that_is_stated_is_about_the_error_that_is_made() -> None:
    pairs = growths(60, seed=1)
    known = [LossGrowth(first, whole - first) for first, whole in pairs[:30]]

    missed = [
        (whole - extrapolate_loss(first, known).log_loss) / extrapolate_loss(first, known).noise
        for first, whole in pairs[30:]
    ]

    assert 0.2 < float(np.sqrt(np.mean(np.square(missed)))) < 2


def test_without_any_that_went_on_the_first_images_are_all_there_is() -> None:
    assert extrapolate_loss(-3.0, []) == (-3.0, NOISE_WITHOUT_NEIGHBOURS)


def test_losses_end_at_the_least_that_can_be_told_from_none() -> None:
    assert to_log_loss(0.0, "kl") == pytest.approx(log(FINEST_LOSS))
    assert to_log_loss(1.0, "top1") == pytest.approx(log(LEAST_LOSS))
    assert to_log_loss(-0.1, "kl") == pytest.approx(log(0.1))
    assert to_log_loss(0.9, "agreement") == pytest.approx(log(0.1 + LEAST_LOSS))


@pytest.mark.parametrize("objective", get_args(Objective))
def test_a_log_loss_gives_its_value_back(objective: Objective) -> None:
    value = best_value(objective) - 0.25

    assert value_from_log_loss(to_log_loss(value, objective), objective) == pytest.approx(value)
