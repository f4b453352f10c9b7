"""How sure a share of right answers is."""

import math

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


def mcnemar(only_baseline: int, only_candidate: int) -> float:
    """Return the two-sided p-value of the exact McNemar test, from the images that set two apart.

    If neither were better, each such image would favour either by the toss of a coin. Twice the
    smaller binomial tail, at most 1; 1 where the models never differ.

    >>> mcnemar(1, 7)
    0.0703125
    """
    differing, fewer = only_baseline + only_candidate, min(only_baseline, only_candidate)
    return min(1.0, 2 * float(bdtr(fewer, differing, 0.5)))
