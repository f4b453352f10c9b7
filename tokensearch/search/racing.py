"""Stopping early: what its first images prove to be worse than something faster runs no further.

Images come in blocks, each a fair sample. After every block but the last the policy is compared,
image by image, with the best of the policies that are surely faster. Optuna's own pruners know one
objective only, and what they stop has no value for its samplers.
"""

from statistics import NormalDist

import torch
from torch import Tensor

# That none of the looks stops a policy whose images could as well be the rival's.
LEVEL = 0.95
# Times a rival's loss that must be proven. One that is a little worse on most images is often the
# better on the few that hold most of the sum: of the 41 in a small space that lose less than the
# best that is surely faster, a factor of 1 stopped one, this one none, for 11 % more images.
CLEARLY = 1.5
FIRST_LOOK = 32  # images: of the ranks of fewer the normal distribution is a poor picture


def proven_worse(losses: Tensor, rival: Tensor, *, looks: int, level: float = LEVEL) -> bool:
    """Whether the images so far prove a rival clearly better, and it is so in the mean.

    losses  (M,) what the policy loses on each image
    rival   (M,) or more, what the rival loses on each
    looks   how often this is asked in all: each may err by its share alone (Bonferroni)

    By signed ranks, since a few images hold most of any divergence and would hide the rest from a
    test of means. Source: Wilcoxon 1945, by the normal approximation, images that do not differ
    left out.
    """
    mine, theirs = losses.double(), rival[: len(losses)].double()
    if len(mine) < FIRST_LOOK or mine.mean() <= theirs.mean():
        return False
    lead = mine - CLEARLY * theirs
    ranks = _ranks(lead[lead != 0].abs())
    signed = (ranks * lead[lead != 0].sign()).sum()
    z = NormalDist().inv_cdf(1 - (1 - level) / looks)
    return bool(signed > z * ranks.square().sum().sqrt())


def _ranks(values: Tensor) -> Tensor:
    """Rank of each, from 1; equal ones share the mean of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    middle: Tensor = count.cumsum(0) - (count - 1) / 2
    return middle[place].double()
