"""Latencies where passes cannot be split: few terms, fitted to a few policies timed whole.

Multiply-accumulates alone say 0.18x where launches or sites make it 0.90x.
"""

from collections.abc import Sequence

import numpy as np

from tokensearch.costs.forecast import LEAST_TIMED, MACS_ERROR, Forecast
from tokensearch.costs.prices import Floats, solve_non_negative
from tokensearch.policy import Policy, Prune, mac_share


def forecast_from_timings(timed: Sequence[tuple[Policy, float]]) -> Forecast:
    """Return a forecast by ratios to the baseline, which were timed.

    Its error is that of each policy by what the others say. Of fewer than four nothing is learned,
    and multiply-accumulates are believed as they are.
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
