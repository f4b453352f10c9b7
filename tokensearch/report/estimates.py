"""Sums of a ledger's figures."""

from collections.abc import Iterable

from tokensearch.resampling import Estimate

Weighted = tuple[float, Estimate]


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Sum figures whose intervals hold all at once, as those of a ledger do.

    Then the sums of their ends hold too: wider than an interval of the sum itself, never too
    narrow (Scheffe's projection argument).
    """
    return weighted((1.0, one) for one in estimates)


def weighted(parts: Iterable[Weighted]) -> Estimate:
    """Sum figures, each times a weight of at least 0."""
    taken = list(parts)
    return Estimate(
        sum(weight * one.value for weight, one in taken),
        sum(weight * one.low for weight, one in taken),
        sum(weight * one.high for weight, one in taken),
    )


def opposite(one: Estimate) -> Estimate:
    """Turn a change into what it saves."""
    return Estimate(-one.value, -one.high, -one.low)
