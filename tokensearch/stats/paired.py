"""How sure the difference of two shares on the same images is. Standard library alone."""

import math
from statistics import NormalDist

LEVEL = 0.95  # nominal coverage of every interval, unless asked otherwise


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
    reach = normal_reach(level) * math.sqrt((won + lost - difference**2) / (images + 2))
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def normal_reach(level: float) -> float:
    """Return how many standard deviations hold `level` of a normal distribution.

    >>> round(normal_reach(0.95), 6)
    1.959964
    """
    return NormalDist().inv_cdf((1 + level) / 2)
