"""Latencies expected of policies, corrected by what a run has timed so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import hypot, log, pi, sqrt
from typing import Protocol

import numpy as np

from tokensearch.costs.prices import Floats, solve_non_negative
from tokensearch.policy import Policy, Prune, mac_share

# What is believed of a table before anything is timed: that its logarithm is off by a constant and
# in proportion. Wide enough that a dozen timings decide.
OFFSET_SD, SLOPE_SD = 0.1, 0.2
# Multiply-accumulates alone, before anything is timed: pruning DeiT-T-sized blocks on two CPU cores
# saved 0.75 of what they promised, and within a quarter of that.
MACS_ERROR = 0.15
LEAST_TIMED = 4  # for an error of their own
BELIEF = 1.0  # timings that the error known before is worth
ROUNDS = 4  # of line by noise, and noise by line
# Timings of the same operators within so much of a prediction, from which one more there would
# learn little, as long as the line through all is about as sure as a trial's own timing (2 %).
ENOUGH, NEARBY, SURE = 2, 0.05, 0.04
# Mean errors that a prediction may be off by and still be believed: of normal errors, nine in ten
# are within two. Errors that lie on one side, or at one end of the front, are not normal: there the
# one that nine in ten are within counts.
MARGIN, NINE_IN_TEN = 2.0, 0.9
TRUSTED = 0.1  # of the worst that a table states: beyond it nothing is known until it is timed
NORMAL = 1.96  # half-widths of 95 % intervals in standard errors
MEAN_OF_NORMAL = sqrt(2 / pi)  # mean size of normal errors, in standard errors
# What of an error is the predictions' own at least, however noisy the timings that it was held to:
# the noise is known from a dozen passes each, and is itself a guess.
LEAST_OWN = 0.5


class TimedRatio(Protocol):
    """A timing as a share of the baseline's latency, with its 95 % interval."""

    @property
    def ratio(self) -> float:
        """Ratio of medians."""
        ...

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        ...

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        ...


@dataclass(frozen=True)
class Forecast:
    """Ratios to the baseline's latency: log ratio = offset + (1 + slope) log predicted."""

    predict: Callable[[Policy], float]  # ratio
    known_error: float  # mean relative error of `predict`, as measured beside it
    predicted: tuple[float, ...] = ()  # of the policies that were timed
    timed: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()  # relative standard error of each timing
    kinds: tuple[frozenset[str], ...] = ()  # the operators of each
    line: tuple[float, float] = field(default=(0.0, 0.0))
    known_worst: float = 0.0  # the largest of the errors that `known_error` is the mean of

    def ratio(self, policy: Policy) -> float:
        """Return the share of the baseline's latency that `policy` is expected to take."""
        if not policy.reduces:
            return 1.0
        offset, slope = self.line
        return float(np.exp(offset + (1 + slope) * np.log(self.predict(policy))))

    @property
    def calibrated(self) -> bool:
        """Whether anything timed on this machine stands behind the error of predictions."""
        return self.known_worst > 0 or len(self.timed) >= LEAST_TIMED

    def learned(self, policy: Policy, timing: TimedRatio) -> "Forecast":
        """Return a forecast that knows what `policy` took, beside the baseline."""
        if not policy.reduces:
            return self
        predicted, timed = (*self.predicted, self.predict(policy)), (*self.timed, timing.ratio)
        x, y = np.log(predicted), np.log(timed)
        return replace(
            self,
            predicted=predicted,
            timed=timed,
            noise=(*self.noise, _standard_error(timing)),
            kinds=(*self.kinds, _kinds(policy)),
            line=_line(x, y - x, self.known_error),
        )

    def weighed(self, policy: Policy, timed: TimedRatio) -> float:
        """Return the ratio to expect where there is a timing too: both, by how sure each is."""
        predicted, measured = self.own_error / MEAN_OF_NORMAL, _standard_error(timed)
        share = (predicted / hypot(predicted, measured)) ** 2 if measured else 1.0
        return float(self.ratio(policy) ** (1 - share) * timed.ratio**share)

    def knows(self, policy: Policy) -> bool:
        """Whether predictions are good, and enough policies like this were timed."""
        if self.own_error > SURE or not self.trusted:
            return False
        at, kinds = self.predict(policy), _kinds(policy)
        alike = [
            one for one, those in zip(self.predicted, self.kinds, strict=True) if those == kinds
        ]
        return sum(abs(log(one / at)) < NEARBY for one in alike) >= ENOUGH

    @property
    def trusted(self) -> bool:
        """Whether predictions may stand in for timings: not before a poor table is corrected."""
        return len(self.timed) >= LEAST_TIMED or self.known_worst <= TRUSTED

    @cached_property
    def error(self) -> float:
        """Mean relative error: of each timed policy by what the others say, once they are a few."""
        return float(np.mean(self._errors)) if self._errors else self.known_error

    @cached_property
    def margin(self) -> float:
        """Relative error that a prediction is allowed."""
        worst = float(np.quantile(self._errors, NINE_IN_TEN)) if self._errors else self.known_worst
        return max(MARGIN * self.error, worst)

    @cached_property
    def _errors(self) -> list[float]:
        """Of each timed policy by what the others say; none before they are a few."""
        if len(self.timed) < LEAST_TIMED:
            return []
        x, y = np.log(self.predicted), np.log(self.timed)
        others = ~np.eye(len(x), dtype=bool)
        off = []
        for index, rest in enumerate(others):
            offset, slope = _line(x[rest], (y - x)[rest], self.known_error)
            off.append(float(abs(np.expm1(offset + (1 + slope) * x[index] - y[index]))))
        return off

    @property
    def own_error(self) -> float:
        """The error without what the noise of the timings adds to it."""
        if len(self.timed) < LEAST_TIMED:
            return self.known_error
        noise = MEAN_OF_NORMAL * float(np.mean(self.noise))
        return max(LEAST_OWN * self.error, sqrt(max(0.0, self.error**2 - noise**2)))


def _standard_error(timed: TimedRatio) -> float:
    """Relative to the ratio."""
    return (timed.high - timed.low) / (2 * NORMAL * timed.ratio)


def _kinds(policy: Policy) -> frozenset[str]:
    return frozenset(type(step).__name__ for step in policy.steps)


def _line(x: Floats, off: Floats, error: float) -> tuple[float, float]:
    """Most probable offset and slope of the logarithms, given what was believed before.

    What is left beside the line is as wide as it is found to be, and `error` before much is found.
    """
    rows = np.stack([np.ones_like(x), x], axis=1)
    prior, noise = np.diag([OFFSET_SD**-2, SLOPE_SD**-2]), error
    coefficients: Floats = np.zeros(2)
    for _ in range(ROUNDS):
        believed = rows.T @ rows / noise**2 + prior
        coefficients = np.linalg.solve(believed, rows.T @ off / noise**2).astype(np.float64)
        squares = np.square(off - rows @ coefficients).sum()
        noise = float(np.sqrt((BELIEF * error**2 + squares) / (BELIEF + len(x))))
    return float(coefficients[0]), float(coefficients[1])


def forecast_from_timings(timed: Sequence[tuple[Policy, float]]) -> Forecast:
    """Return a forecast by ratios to the baseline, which were timed, where passes cannot be split.

    Few terms are fitted: multiply-accumulates alone say 0.18x where launches or sites make it
    0.90x. Its error is that of each policy by what the others say. Of fewer than four nothing is
    learned, and multiply-accumulates are believed as they are.
    """
    if len(timed) < LEAST_TIMED:
        return Forecast(mac_share, MACS_ERROR)
    rows = np.array([_terms(policy) for policy, _ in timed])
    ratios = np.array([ratio for _, ratio in timed])
    errors = []
    for index in range(len(timed)):
        rest = np.arange(len(timed)) != index
        errors.append(
            abs(float(rows[index] @ _fitted(rows[rest], ratios[rest])) / ratios[index] - 1)
        )
    coefficients = _fitted(rows, ratios)
    return Forecast(
        lambda policy: float(np.array(_terms(policy)) @ coefficients),
        float(np.mean(errors)),
        known_worst=max(errors),
    )


def _terms(policy: Policy) -> tuple[float, ...]:
    """What a pass takes at all, its work, and its sites: prunes have fewer operators than pools."""
    prunes = sum(isinstance(step, Prune) for step in policy.steps)
    return 1.0, mac_share(policy), prunes, len(policy.steps) - prunes


def _fitted(rows: Floats, ratios: Floats) -> Floats:
    """Least squares of relative residuals; the baseline is one more, of ratio 1."""
    rows = np.vstack([rows, [1.0, 1.0, 0.0, 0.0]]) / np.append(ratios, 1.0)[:, None]
    return solve_non_negative(rows, np.ones(len(rows)))
