"""How sure a share of right answers is."""

import math
from collections.abc import Sequence

from scipy.special import bdtr

from tokensearch.stats.interval import LEVEL, normal_reach


def wilson(right: float, images: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the score interval of `right / images`, both ends within 0 and 1.

    Source: Wilson 1927; method 3 of Newcombe 1998 (Statistics in Medicine 17, 857), whose coverage
    holds near 0 and 1, where accuracies live and the plain Wald interval fails.

    >>> low, high = wilson(81, 263)
    >>> f"{low:.4f} to {high:.4f}"
    '0.2553 to 0.3662'
    """
    z2 = normal_reach(level) ** 2
    centre = right + z2 / 2
    reach = math.sqrt(z2 * (right * (images - right) / images + z2 / 4))
    # Rounding may step over the ends that the formula meets exactly at no and at all right.
    low = 0.0 if right == 0 else (centre - reach) / (images + z2)
    high = 1.0 if right == images else (centre + reach) / (images + z2)
    return low, high


def design_effect(values: Sequence[float], groups: Sequence[int]) -> float:
    """Return how many times more the mean of grouped values varies than that of as many strangers.

    At least 1. Where all values are equal nothing tells: then what it could be at most, the mean
    size of a group. Source: Kish, "Survey Sampling", 1965, chapter 5.

    >>> design_effect([1, 1, 0, 0], [7, 7, 8, 8])
    2.0
    """
    mean = sum(values) / len(values)
    sums: dict[int, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    alone = sum((value - mean) ** 2 for value in values)
    if alone == 0:
        return len(values) / len(sums)
    return max(1.0, sum(total**2 for total in sums.values()) / alone)


def mcnemar(only_baseline: int, only_candidate: int) -> float:
    """Return the two-sided p-value of the exact McNemar test, from the images that set two apart.

    If neither were better, each such image would favour either by the toss of a coin. Twice the
    smaller binomial tail, at most 1; 1 where the models never differ.

    >>> mcnemar(1, 7)
    0.0703125
    """
    differing, fewer = only_baseline + only_candidate, min(only_baseline, only_candidate)
    return min(1.0, 2 * float(bdtr(fewer, differing, 0.5)))
