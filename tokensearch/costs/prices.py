"""Prices of what is no plain half of a block: sums of few terms, each with a reason.

A price is a sum of coefficients times products of counts, none of them negative: an operator does
not become cheaper by work that it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# What each price may grow with: "in" and "out" are patch tokens before and after, "gone" their
# difference; "1" is what it costs to start the operators at all.
_LINEAR, _PICKED, _QUADRATIC = ("1", "in"), ("1", "in", "out"), ("1", "in", "in*in")
TERMS: dict[str, tuple[str, ...]] = {
    "attention": _QUADRATIC,  # projections, and every token against every other
    "sized attention": _QUADRATIC,
    "mlp": _QUADRATIC,  # n alone, but for caches that overflow
    "stem": ("1",),
    "other": ("1",),
    "head": _LINEAR,  # its norm, and the average if it takes one, read every token that is left
    "prefix-only attention": _LINEAR,  # few queries: keys, values and logits of every token
    "sized prefix-only attention": _LINEAR,
    "score": _LINEAR,  # one row of attention, whatever is made of it
    "prune": _PICKED,  # two sorts of all, rows copied for those that stay or fuse
    "pool bipartite": ("1", "in", "in*in", "in*gone"),  # half against half; then one-hot product
    "pool sized_bipartite": ("1", "in", "in*in", "in*gone"),
    "pool energy": ("1", "in", "in*in", "in*gone"),  # all against all
    "pool energy_bipartite": ("1", "in", "in*in", "in*gone"),
    "pool ranked": ("1", "in", "out", "out*gone"),  # the gone against the kept, twice
    "pool kmeans": ("1", "in", "in*out"),  # five rounds of tokens against centres
    "pool kmedoids": ("1", "in*in", "in*out", "in*in*out"),  # members against all distances
    "pool agglomerative": ("1", "gone", "in*in", "in*in*gone"),  # a round over the matrix per loss
    "pool grid": ("1", "in*out"),  # one product
    "prune_or_pool": ("1", "in", "in*in", "in*gone"),  # both ways for every image
}
# Residuals beyond so many robust standard deviations are other programs' (Tukey's habit is 3).
OUTLIER = 3.0
MAD_TO_SIGMA = 1.4826  # of normal noise
LOWEST = 10.0  # times less than the median sample
REFITS = 2  # without outliers; a third changes nothing (measured)
TINY = 1e-9  # what rounding leaves of samples without noise


@dataclass(frozen=True, slots=True)
class Price:
    """What one operator, score or end of the model costs, by the counts it meets."""

    name: str
    terms: tuple[str, ...]
    ms: tuple[float, ...]  # per unit of each term
    samples: int
    error: float  # median relative residual of a sample: noise and misfit together

    def of(self, n_in: int, n_out: int) -> float:
        """Milliseconds at a site with these patch tokens before and after."""
        return float(self.at(np.array([n_in]), np.array([n_out]))[0])

    def at(self, n_in: Ints, n_out: Ints) -> Floats:
        """Milliseconds at many sites at once."""
        total: Floats = _rows(self.terms, n_in, n_out) @ np.array(self.ms)
        return total


def terms_of(name: str) -> tuple[str, ...]:
    """Terms by the whole name, or by its first word where operators of a kind are alike."""
    return TERMS[name] if name in TERMS else TERMS[name.split(" ")[0]]


def fit_price(name: str, n_in: Ints, n_out: Ints, ms: Floats) -> Price:
    """Fit a price to samples, by least squares of relative residuals without outliers.

    n_in, n_out, ms  (samples,)
    """
    terms = terms_of(name)
    # A clock's step, or the price of borders taken off, leaves some samples next to nothing: no
    # residual may be relative to that.
    least = max(float(np.median(ms)) / LOWEST, TINY)
    rows, measured = _rows(terms, n_in, n_out), np.maximum(ms, least)
    # First relative to the samples themselves: what other programs slowed then weighs little.
    coefficients = solve_non_negative(rows / measured[:, None], np.ones(len(measured)))
    for _ in range(REFITS):
        expected = rows @ coefficients
        near = _near(measured / expected)
        coefficients = solve_non_negative(
            (rows / expected[:, None])[near], (measured / expected)[near]
        )
    error = float(np.median(np.abs(measured / (rows @ coefficients) - 1)))
    return Price(name, terms, tuple(coefficients.tolist()), len(measured), error)


def _near(ratios: Floats) -> npt.NDArray[np.bool_]:
    """Which are no outliers."""
    away: Floats = np.abs(ratios - np.median(ratios))
    return away <= OUTLIER * MAD_TO_SIGMA * float(np.median(away)) + TINY


def solve_non_negative(rows: Floats, wanted: Floats) -> Floats:
    """Return the coefficients of least squares, none of them below 0.

    rows    (samples, terms)
    wanted  (samples,)
    """
    from scipy.optimize import nnls

    # Terms differ by a factor of a million: without a scale, rounding would decide.
    scale = np.maximum(np.abs(rows).max(axis=0), TINY)
    coefficients: Floats = nnls(rows / scale, wanted)[0] / scale
    return coefficients


def _rows(terms: Sequence[str], n_in: Ints, n_out: Ints) -> Floats:
    """Values of the terms at every site: (sites, terms)."""
    counts = {"1": np.ones_like(n_in), "in": n_in, "out": n_out, "gone": n_in - n_out}
    columns = [prod(counts[name] for name in term.split("*")) for term in terms]
    return np.stack(columns, axis=1).astype(np.float64)
