"""What a policy that was stopped early would have lost on all images, by how others went on.

A few images hold most of any divergence: the mean over the first of them is too small for most
policies, by much the same share, since the images are the same. A sampler that took such means as
they are would come back again and again to what only looks good.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from tokensearch.evaluate import per_image
from tokensearch.policy import Objective
from tokensearch.search.evaluator import Evaluator
from tokensearch.search.heat import Ran, worth_of
from tokensearch.search.loss import log_loss_of

ALIKE = 9  # policies that lost most nearly as much by then, and went on
UNKNOWN = 1.0  # standard error of a log loss when none went on


class Growth(NamedTuple):
    """How the log loss of one policy went on from its first images to all of them."""

    first: float
    more: float


class Foreseen(NamedTuple):
    """A log loss on all images, and its standard error."""

    log_loss: float
    noise: float


def growths(
    whole: Sequence[Ran], images: int, *, evaluator: Evaluator, objective: Objective
) -> list[Growth]:
    """Return how policies that ran on all images went on from the first `images`."""
    split, found = evaluator.splits.search, list[Growth]()
    for one in whole:
        answers = evaluator.answering.remembered(one.policy, "search", images)
        if answers is not None and one.policy.reduces:
            first = log_loss_of(float(per_image(answers, split, objective).mean()), objective)
            last = log_loss_of(worth_of(one.trial.accuracy, objective), objective)
            found.append(Growth(first, last - first))
    return found


def foreseen(first: float, growths: Sequence[Growth]) -> Foreseen:
    """Foresee the log loss on all images of a policy that has `first` on a part of them."""
    alike = sorted(growths, key=lambda one: abs(one.first - first))[:ALIKE]
    if not alike:
        return Foreseen(first, UNKNOWN)
    middle = median(one.more for one in alike)
    spread = median(abs(one.more - middle) for one in alike)
    return Foreseen(first + middle, spread + UNKNOWN / len(alike))
