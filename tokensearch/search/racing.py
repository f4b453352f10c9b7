"""Stopping early: what its first images prove clearly worse than something faster runs no further.

Images come in blocks, each a fair sample. After every block but the last the policy is compared,
image by image, with the best of the policies that are surely faster. Optuna's own pruners know one
objective only, and what they stop has no value for its samplers.
"""

from statistics import NormalDist

import torch
from torch import Tensor

# That none of the looks stops a policy whose images could as well be the rival's.
LEVEL = 0.95
# Times a rival's divergence that must be proven. What diverges a little more on most images often
# diverges less on the few that hold most of the sum: of the 41 schedules of a small space that
# diverge less than the best that is surely faster, a factor of 1 stopped one, on the true front,
# and this one none, for 11 % more images.
CLEARLY = 1.5
FIRST_LOOK = 32  # images: of the ranks of fewer the normal distribution is a poor picture


def proven_worse(
    losses: Tensor, rival: Tensor, *, looks: int, times: float = 1.0, level: float = LEVEL
) -> bool:
    """Whether the images so far prove a loss of so many times a rival's, and the mean is larger.

    losses  (M,) what the policy loses on each image
    rival   (M,) or more, what the rival loses on each
    looks   how often this is asked in all: each may err by its share alone (Bonferroni)
    times   `CLEARLY` for divergences; 1 for losses that are not of the schedule alone, such as
            wrong answers

    By signed ranks, since a few images hold most of any divergence and would hide the rest from a
    test of means. Source: Wilcoxon 1945, by the normal approximation, images without a difference
    left out.
    """
    mine, theirs = losses.double(), rival[: len(losses)].double()
    if len(mine) < FIRST_LOOK or mine.mean() <= theirs.mean():
        return False
    lead = mine - times * theirs
    ranks = _ranks(lead[lead != 0].abs())
    signed = (ranks * lead[lead != 0].sign()).sum()
    z = NormalDist().inv_cdf(1 - (1 - level) / looks)
    return bool(signed > z * ranks.square().sum().sqrt())


def _ranks(values: Tensor) -> Tensor:
    """Rank of each, from 1; equal ones share the mean of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    middle: Tensor = count.cumsum(0) - (count - 1) / 2
    return middle[place].double()
