"""What a candidate is expected to add to the front: its hypervolume improvement."""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log

import numpy as np
from scipy.special import ndtr

from tokensearch.search.sampler.observations import Observation
from tokensearch.search.sampler.surrogate import Values

GRID = 64  # latencies at which the front is evaluated
TARGET_WEIGHT = 0.5  # share of the weight that lies on the target itself, if there is one
# What counts as lost where nothing was evaluated that is as fast: so much more than the best loses,
# in nats or as a share. Nothing that loses more is of use. With the largest loss seen in its place,
# a search that began with mild schedules had no reason to try a fast one.
MOST_LOSS = 1.0


def count_loss_from(observation: Observation, least: float, *, smallest_loss: float) -> Observation:
    """Return an observation with log(loss + least) in place of log(loss + smallest_loss)."""
    loss = max(0.0, exp(observation.log_loss) - smallest_loss)
    share = (loss + smallest_loss) / (loss + least)  # by which the same error weighs less
    return replace(observation, log_loss=log(loss + least), noise=observation.noise * share)


def front_of(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return the Pareto front of latency and loss, fastest first."""
    front: list[Observation] = []
    for observation in sorted(observations, key=lambda one: (one.ratio, one.log_loss)):
        if not front or observation.log_loss < front[-1].log_loss:
            front.append(observation)
    return tuple(front)


def hypervolume_gains(
    observations: Sequence[Observation],
    ratios: Values,
    mean: Values,
    deviation: Values,
    *,
    target_ratio: float,
    least: float,
) -> Values:
    """Return the expected hypervolume improvement of each candidate, in log loss times latency.

    observations    of complete trials
    ratios          (n,) predicted latencies of the candidates, of the baseline's
    mean, deviation (n,) of their predicted log losses, which are normal
    target_ratio    the target as a share of the baseline's latency
    least           what was added to every loss before its logarithm: none has a smaller one
    """
    at = np.linspace(0.0, min(1.0, target_ratio), GRID + 1)[1:]
    worst = log(exp(min(one.log_loss for one in observations)) + MOST_LOSS)
    best = np.array([min([worst, *(o.log_loss for o in observations if o.ratio <= t)]) for t in at])
    floor, weight = np.array([log(least)]), np.full(GRID, 1 / GRID)
    best = np.maximum(best, floor)
    if target_ratio < 1:
        weight = (1 - TARGET_WEIGHT) * weight
        weight[-1] += TARGET_WEIGHT
    # A normal prediction includes losses below zero: these are no gain.
    expected = _shortfall(best, mean, deviation) - _shortfall(floor, mean, deviation)
    gains: Values = np.where(ratios[:, None] <= at, expected, 0.0) @ weight
    return gains


def _shortfall(level: Values, mean: Values, deviation: Values) -> Values:
    """Expected amount by which normal predictions lie below levels: (predictions, levels)."""
    lead = (level - mean[:, None]) / deviation[:, None]
    density = np.exp(-0.5 * np.square(lead)) / np.sqrt(2 * np.pi)
    shortfall: Values = deviation[:, None] * (lead * ndtr(lead) + density)
    return shortfall
