"""How sure a share of right answers is."""

import math

from scipy.special import bdtr, ndtri

LEVEL = 0.95  # nominal coverage of every interval, unless asked otherwise


def wilson(right: int, images: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the score interval of `right / images`, both ends within 0 and 1.

    Source: Wilson 1927; method 3 of Newcombe 1998 (Statistics in Medicine 17, 857), whose coverage
    holds near 0 and 1, where accuracies live and the plain Wald interval fails.

    >>> low, high = wilson(81, 263)
    >>> f"{low:.4f} to {high:.4f}"
    '0.2553 to 0.3662'
    """
    z2 = _z(level) ** 2
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


def paired_difference(
    only_baseline: int, only_candidate: int, images: int, *, level: float = LEVEL
) -> tuple[float, float]:
    """Return the interval of the candidate's share of right answers minus the baseline's.

    One imaginary image more on either side keeps it honest when models hardly differ: it never has
    no width. Source: Bonett and Price 2012 (Journal of Educational and Behavioral Statistics 37,
    479), recommended for paired shares by Fagerland, Lydersen and Laake 2014 (Statistics in
    Medicine 33, 2850).
    """
    lost, won = ((n + 1) / (images + 2) for n in (only_baseline, only_candidate))
    difference = won - lost
    reach = _z(level) * math.sqrt((won + lost - difference**2) / (images + 2))
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def _z(level: float) -> float:
    """Return how many standard deviations hold `level` of a normal distribution."""
    return float(ndtri((1 + level) / 2))
