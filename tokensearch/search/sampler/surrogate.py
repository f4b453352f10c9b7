"""A guess of what a schedule loses, from those that were tried: a Gaussian process in numpy.

Losses span orders of magnitude and change smoothly with how many tokens are left where, so their
logarithm is modelled, over what a policy leaves and how it takes the rest away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt

from tokensearch.policy import Policy, Pool, Prune, Step, changes_sizes
from tokensearch.policy.steps import SCORES

Values = npt.NDArray[np.float64]

_KINDS = ("drop", "fuse", "mean", "bipartite", "ranked", "other")
# Of the kernel, in standard deviations of the losses seen; lengths in units of the features. Fixed:
# settings that were likeliest for so few observations, all of them chosen near the front, mostly
# said that nothing is alike, or that what was seen is exact, and the search stood still for a
# hundred trials. On the demo model these reach 98 % of the reference after 44 to 76 evaluations
# (three seeds), with half the noise after more than 90, with noise 0.25 and lengths 1.6, 1.1 and
# 7.6 after 78 to 88.
AMPLITUDE, NOISE = 2.5, 0.2
LENGTHS = 2.5, 1.3, 7.0  # counts, ways, flags
MOST_DOUBT = 3.0


@dataclass(frozen=True, slots=True)
class Features:
    """One policy in numbers, by kinds that are compared on scales of their own."""

    counts: Values  # (blocks,) logarithm of the share of tokens left after each
    ways: Values  # (blocks x kinds,) share of all tokens that each operator took by then
    flags: Values


def features(policy: Policy) -> Features:
    """Return what the losses of two policies are likely to depend on."""
    model = policy.model
    taken = np.zeros((model.blocks, len(_KINDS)))
    by_score = np.zeros(len(SCORES))
    counts, left = [], model.patch_tokens
    for block in range(model.blocks):
        for step in policy.steps_of(block):
            share = (left - step.keep) / model.patch_tokens
            taken[block, _KINDS.index(_kind(step))] += share
            if step.score is not None:
                by_score[SCORES.index(step.score)] += share
            left = step.keep
        counts.append(log2((left + 1) / (model.patch_tokens + 1)))
    sized = policy.proportional_attention and any(map(changes_sizes, policy.steps))
    return Features(
        np.array(counts) / 2,
        taken.cumsum(axis=0).ravel(),
        np.array([float(sized), *by_score]),
    )


def _kind(step: Step) -> str:
    match step:
        case Prune():
            return step.rest
        case Pool() if step.match in _KINDS:
            return step.match
        case _:
            return "other"


class Surrogate:
    """What losses are expected of policies, given those of others."""

    def fit(self, tried: Sequence[Features], log_loss: Values, noise: Values) -> None:
        """Take in what was observed.

        log_loss  (n,) natural logarithms
        noise     (n,) standard errors of them, from how many images they rest on
        """
        self._tried = _table(tried)
        self._mean, self._scale = float(log_loss.mean()), float(log_loss.std()) or 1.0
        self._y = (log_loss - self._mean) / self._scale
        self._noise = noise / self._scale
        self._solve()

    def guess(self, policies: Sequence[Features]) -> tuple[Values, Values]:
        """Return the mean and the standard deviation of each log loss, (n,) both."""
        across = _kernel(_table(policies), self._tried)
        mean = across @ self._weights
        half = np.linalg.solve(self._root, across.T)
        variance = AMPLITUDE**2 - np.square(half).sum(axis=0)
        deviation = self._doubt * np.sqrt(np.maximum(variance, 1e-8))
        return self._mean + self._scale * mean, self._scale * deviation

    def _solve(self) -> None:
        covariance = _kernel(self._tried, self._tried) + np.diag(np.square(self._noise) + NOISE**2)
        self._root = np.linalg.cholesky(covariance).astype(np.float64)
        half = np.linalg.solve(self._root, np.eye(len(self._y)))
        inverse = half.T @ half
        self._weights = inverse @ self._y
        # How far off the others are about each, over how far they say they are.
        missed = np.sqrt(np.mean(np.square(self._weights) / np.diag(inverse)))
        self._doubt = float(np.clip(missed, 1.0, MOST_DOUBT))


def _table(policies: Sequence[Features]) -> tuple[Values, ...]:
    return tuple(
        np.array([getattr(one, name) for one in policies]) for name in ("counts", "ways", "flags")
    )


def _kernel(one: tuple[Values, ...], other: tuple[Values, ...]) -> Values:
    distance = sum(
        _squares(a, b) / length**2 for a, b, length in zip(one, other, LENGTHS, strict=True)
    )
    kernel: Values = AMPLITUDE**2 * np.exp(-0.5 * distance)
    return kernel


def _squares(one: Values, other: Values) -> Values:
    """Mean squared differences of every pair."""
    apart = np.square(one).sum(1)[:, None] + np.square(other).sum(1)[None] - 2 * one @ other.T
    squares: Values = np.maximum(apart, 0.0) / one.shape[1]
    return squares
