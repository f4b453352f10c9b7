"""A guess of what a schedule loses, from those that were tried: a Gaussian process in numpy.

Losses span orders of magnitude and change smoothly with how many tokens are left where, so their
logarithm is modelled, over what a policy leaves and how it takes the rest away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log, log2, pi

import numpy as np
import numpy.typing as npt

from tokensearch.policy import Policy, Pool, Prune, Step, changes_sizes
from tokensearch.policy.steps import SCORES

Values = npt.NDArray[np.float64]

_KINDS = ("drop", "fuse", "mean", "bipartite", "ranked", "other")
# Of the kernel: amplitude, noise, and lengths for counts, ways and flags. Ranges wide enough that
# both a straight line and a rough surface are among the guesses; the likelihood chooses.
_LOW = np.log([0.5, 0.01, 0.1, 0.02, 0.1])
_HIGH = np.log([5.0, 0.5, 3.0, 2.0, 10.0])
MOST_DOUBT = 3.0
GUESSES = 48  # of the kernel's settings, every time they are chosen anew


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


@dataclass
class Surrogate:
    """What losses are expected of policies, given those of others."""

    random: np.random.Generator
    _settings: Values = field(default_factory=lambda: (_LOW + _HIGH) / 2)
    _fitted: int = 0  # observations when the settings were chosen

    def fit(self, tried: Sequence[Features], log_loss: Values, noise: Values) -> None:
        """Take in what was observed.

        log_loss  (n,) natural logarithms
        noise     (n,) standard errors of them, from how many images they rest on
        """
        self._tried = _table(tried)
        self._mean, self._scale = float(log_loss.mean()), float(log_loss.std()) or 1.0
        self._y = (log_loss - self._mean) / self._scale
        self._noise = noise / self._scale
        self._squares = _squares(self._tried, self._tried)
        if len(tried) >= 1.1 * self._fitted:  # afterwards a few more change little
            self._settings, self._fitted = self._likeliest(), len(tried)
        self._solve()

    def guess(self, policies: Sequence[Features]) -> tuple[Values, Values]:
        """Return the mean and the standard deviation of each log loss, (n,) both."""
        across = _kernel(_squares(_table(policies), self._tried), self._settings)
        mean = across @ self._weights
        half = np.linalg.solve(self._root, across.T)
        variance = np.exp(self._settings[0]) ** 2 - np.square(half).sum(axis=0)
        deviation = self._doubt * np.sqrt(np.maximum(variance, 1e-8))
        return self._mean + self._scale * mean, self._scale * deviation

    def _likeliest(self) -> Values:
        """Settings under which what was observed is likeliest: the best of guesses, then nearer."""
        best = self._settings
        best_value = self._likelihood(best)
        for number in range(GUESSES):
            if number < GUESSES // 2:
                guess = self.random.uniform(_LOW, _HIGH)
            else:
                guess = np.clip(best + self.random.normal(0, 0.25, len(_LOW)), _LOW, _HIGH)
            value = self._likelihood(guess)
            if value > best_value:
                best, best_value = guess, value
        return best

    def _likelihood(self, settings: Values) -> float:
        root = self._cholesky(settings)
        half = np.linalg.solve(root, self._y)
        return float(-0.5 * half @ half - np.log(np.diag(root)).sum() - len(half) / 2 * log(2 * pi))

    def _solve(self) -> None:
        self._root = self._cholesky(self._settings)
        half = np.linalg.solve(self._root, np.eye(len(self._y)))
        inverse = half.T @ half
        self._weights = inverse @ self._y
        # How far off the others are about each, over how far they say they are: the settings that
        # are likeliest for so few are too sure of themselves (1.3 to 2 times, on the demo model).
        missed = np.sqrt(np.mean(np.square(self._weights) / np.diag(inverse)))
        self._doubt = float(np.clip(missed, 1.0, MOST_DOUBT))

    def _cholesky(self, settings: Values) -> Values:
        noise = np.square(self._noise) + np.exp(settings[1]) ** 2
        covariance = _kernel(self._squares, settings) + np.diag(noise)
        return np.linalg.cholesky(covariance).astype(np.float64)


def _table(policies: Sequence[Features]) -> tuple[Values, ...]:
    return tuple(
        np.array([getattr(one, name) for one in policies]) for name in ("counts", "ways", "flags")
    )


def _squares(one: tuple[Values, ...], other: tuple[Values, ...]) -> tuple[Values, ...]:
    """Mean squared differences of every pair, by kind of feature."""
    return tuple(
        np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T, 0.0)
        / a.shape[1]
        for a, b in zip(one, other, strict=True)
    )


def _kernel(squares: tuple[Values, ...], settings: Values) -> Values:
    amplitude, _, *lengths = np.exp(settings)
    distance = sum(square / length**2 for square, length in zip(squares, lengths, strict=True))
    kernel: Values = amplitude**2 * np.exp(-0.5 * distance)
    return kernel
