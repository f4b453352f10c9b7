"""Stopping early: what its first images prove to be worse than something faster runs no further.

Images come in blocks, each a fair sample. After every block but the last the policy is compared,
image by image, with the best of the policies that are surely faster. Optuna's own pruners know one
objective only, and what they stop has no value for its samplers.
"""

from statistics import NormalDist

import torch
from torch import Tensor

# That none of the looks stops a policy whose images could as well be the rival's. One that is worse
# on most images and better on the few that hold most of the sum may still be stopped before those.
LEVEL = 0.95
FIRST_LOOK = 32  # images: of the ranks of fewer the normal distribution is a poor picture


def proven_worse(worths: Tensor, rival: Tensor, *, looks: int, level: float = LEVEL) -> bool:
    """Whether the images so far prove a rival better: in the mean, and by their signed ranks.

    worths  (M,) what each image adds to the policy's worth
    rival   (M,) or more, what it adds to the rival's
    looks   how often this is asked in all: each may err by its share alone (Bonferroni)

    Ranks, since a few images hold most of any divergence and would hide the rest from a test of
    means. Source: Wilcoxon 1945, by the normal approximation, images that do not differ left out.
    """
    lead = rival[: len(worths)].double() - worths.double()
    if len(lead) < FIRST_LOOK or lead.mean() <= 0:
        return False
    ranks = _ranks(lead[lead != 0].abs())
    signed = (ranks * lead[lead != 0].sign()).sum()
    z = NormalDist().inv_cdf(1 - (1 - level) / looks)
    return bool(signed > z * ranks.square().sum().sqrt())


def _ranks(values: Tensor) -> Tensor:
    """Rank of each, from 1; equal ones share the mean of theirs."""
    _, place, count = torch.unique(values, return_inverse=True, return_counts=True)
    middle: Tensor = count.cumsum(0) - (count - 1) / 2
    return middle[place].double()
