"""Predict the loss of a policy from those observed: a Gaussian process over policy features.

Losses span orders of magnitude and change smoothly with the tokens left after each block. So the
process models their logarithm, over what a policy leaves and how it takes the rest away. Far from
all that was observed it returns to a trend: the fewer tokens are left, the more is lost. Returning
to the mean instead, it took schedules that leave almost nothing for good ones, and tried them.

Notation:

X: features of the n observed policies, (n, d): counts, operators, flags, side by side.
x: features of the m policies to predict, (m, d).
y: observed log losses less their trend, (n,); standardised to standard deviation 1.
noise: standard errors of y, (n,).
K: covariance of the observed, k(X, X) + diag(noise^2 + NOISE^2), (n, n).
d: distance, the root of the sum over groups of mean((x - x')^2) / length^2.
k: Matern kernel with nu = 3/2, AMPLITUDE^2 (1 + sqrt(3) d) exp(-sqrt(3) d).
alpha: K^-1 y, (n,). The prediction at x is k(x, X) alpha.
L: lower Cholesky factor of K, (n, n).
std_inflation: factor on predicted deviations. The root mean square of the leave-one-out residuals,
    each over its predicted deviation: alpha_i / sqrt((K^-1)_ii) (Rasmussen & Williams 2006, 5.4.2).
    Without that of the baseline, whose log loss is far below all others: its residual alone tripled
    all deviations, and two trials of three on photographs went to fast schedules of no use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from tokensearch.policy import Policy, Pool, Prune, Step, changes_sizes
from tokensearch.policy.steps import SCORES

Values = npt.NDArray[np.float64]

_KINDS = ("drop", "fuse", "mean", "bipartite", "ranked", "other")
# Kernel settings: in standard deviations of the observed losses; lengths in units of the features.
# They are fixed. Fitted by maximum likelihood to so few observations, all of them near the front,
# they mostly said that no two policies are alike, or that observations are exact, and the search
# stood still for a hundred trials. Predictions vary by as much as losses do. With an amplitude of
# 2.5 the search kept looking where it knew nothing: on "interacting blocks", from a tuning seed, it
# reached 96.1 % of the best known after 120 evaluations, and 97.6 % with 1.0.
AMPLITUDE, NOISE = 1.0, 0.1
# Smoothness: losses bend where a step begins. On four synthetic landscapes, 80 schedules near the
# front predict others to 0.42 in log loss; with the squared exponential to 0.47, and too surely.
NU = 1.5
LENGTHS = 2.5, 1.3, 7.0  # counts, operators, flags
MAX_STD_INFLATION = 3.0
MIN_FOR_TREND = 3  # policies that reduce
# Of log losses around the trend, in nats: a few that happen to lie on a line say little of others.
LEAST_SCALE = 0.25
MIN_STD = 1e-4  # of a prediction, in standard deviations of the losses: rounding gives 0


@dataclass(frozen=True, slots=True)
class Features:
    """One policy in numbers, in groups that are compared on scales of their own."""

    counts: Values  # (blocks,) half the binary logarithm of the share of tokens left after each
    operators: Values  # (blocks x kinds,) share of all tokens that each operator took by then
    flags: Values  # (1 + scores,) whether tokens are weighed by size; share that each score removed


def features(policy: Policy) -> Features:
    """Return the features that the loss of a policy is likely to depend on."""
    model = policy.model
    taken = np.zeros((model.blocks, len(_KINDS)))
    by_score = np.zeros(len(SCORES))
    counts, left = [], model.patch_tokens
    for block in range(model.blocks):
        for step in policy.steps_of(block):
            share = (left - step.keep) / model.patch_tokens
            taken[block, _KINDS.index(_kind(step))] += share
            if step.score in SCORES:  # what was learned for one step says nothing of others
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
    """Predicts the log losses of policies from those of others."""

    def fit(self, observed: Sequence[Features], log_loss: Values, noise: Values) -> None:
        """Condition the process on observations.

        log_loss  (n,) natural logarithms
        noise     (n,) standard errors of them, from how many images they rest on
        """
        reducing = np.array([bool(policy.counts.any()) for policy in observed])
        self._trend = fit_trend(_depths(observed)[reducing], log_loss[reducing])
        rest = log_loss - self._predict_trend(observed)
        self._scale = max(LEAST_SCALE, float(rest[reducing].std()) if reducing.any() else 0.0)
        self._process = GaussianProcessRegressor(
            ConstantKernel(AMPLITUDE**2) * Matern(_length_scales(observed[0]), nu=NU),
            alpha=np.square(noise / self._scale) + NOISE**2,
            optimizer=None,
        )
        self._process.fit(_as_matrix(observed), rest / self._scale)
        self._std_inflation = self._leave_one_out_error(reducing)

    def predict(self, policies: Sequence[Features]) -> tuple[Values, Values]:
        """Return the mean and the standard deviation of each log loss, (m,) both."""
        mean, std = self._process.predict(_as_matrix(policies), return_std=True)
        deviation = self._std_inflation * np.maximum(std, MIN_STD)
        return self._predict_trend(policies) + self._scale * mean, self._scale * deviation

    def _predict_trend(self, policies: Sequence[Features]) -> Values:
        slope, offset = self._trend
        return offset + slope * _depths(policies)

    def _leave_one_out_error(self, reducing: npt.NDArray[np.bool_]) -> float:
        """Error of each observation predicted by the others, over its own deviation: 1 if true.

        reducing  which observations reduce anything, and so count
        """
        alpha, root = self._process.alpha_, self._process.L_
        inverse_root = solve_triangular(root, np.eye(len(root)), lower=True)
        inverse_diagonal = np.square(inverse_root).sum(axis=0)
        squares = (np.square(alpha) / inverse_diagonal)[reducing]
        error = np.sqrt(squares.mean()) if squares.size else 1.0
        return float(np.clip(error, 1.0, MAX_STD_INFLATION))


def fit_trend(depths: Values, log_loss: Values) -> tuple[float, float]:
    """Return slope and offset of log losses over the depth of cuts, by least squares.

    depths    (n,) mean of a policy's counts over its blocks: 0 for none removed, -0.5 for half
    log_loss  (n,) of policies that reduce; the baseline's lies far below any line

    The slope is never positive: with few observations, all mild, chance would make it so.
    """
    if len(log_loss) >= MIN_FOR_TREND and depths.std() > 0:
        slope, offset = np.polyfit(depths, log_loss, 1)
        if slope < 0:
            return float(slope), float(offset)
    return 0.0, float(log_loss.mean()) if log_loss.size else 0.0


def _depths(policies: Sequence[Features]) -> Values:
    return np.array([policy.counts.mean() for policy in policies])


def _groups(policy: Features) -> tuple[Values, ...]:
    return policy.counts, policy.operators, policy.flags


def _as_matrix(policies: Sequence[Features]) -> Values:
    """Features of some policies, (policies, d)."""
    return np.array([np.concatenate(_groups(policy)) for policy in policies])


def _length_scales(policy: Features) -> Values:
    """Length scale of each feature, (d,): a group counts by its mean square, whatever its size."""
    groups = zip(_groups(policy), LENGTHS, strict=True)
    return np.concatenate(
        [np.full(group.size, length * np.sqrt(group.size)) for group, length in groups]
    )
