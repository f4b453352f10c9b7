"""Race a policy against faster ones, stop it early, extrapolate its loss."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import NormalDist, median
from typing import NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor

from tokensearch.accuracy.accuracy import accuracy, per_image
from tokensearch.accuracy.results import ImageResults, join_results
from tokensearch.data.splits import Split
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import TimingBudget
from tokensearch.policy import Objective, Policy, best_value, objective_value
from tokensearch.records.measurements import Accuracy, Comparison, Trial, TrialState, to_json

# Pairs of a trial: enough to teach a forecast; finalists get more. Without warm-up, which took a
# third of the passes: a median bears a slow first one. The baseline's own trial is warm,
# for a target in milliseconds is held against it.
TRIAL_BUDGET = TimingBudget(warmup=0, max_rounds=40, seconds=1.5, precision=0.02)
FIRST_BUDGET = replace(TRIAL_BUDGET, warmup=2)


@dataclass(frozen=True, slots=True)
class EvaluatedTrial:
    """A trial so far, with its policy at hand."""

    trial: Trial
    policy: Policy


@dataclass(frozen=True)
class Race:
    """The policies that a new one has to beat, and by how much predictions may be off."""

    evaluator: PolicyEvaluator
    objective: Objective
    before: Sequence[EvaluatedTrial]  # all that were run on every image
    margin: float  # relative error that a predicted latency is allowed
    ratio: Callable[[EvaluatedTrial], float]  # latency of one of them, as known by now

    def raced(self, policy: Policy, predicted: float) -> tuple[TrialState, Accuracy]:
        """Ask about block after block, until the end or until it is proven not to be worth it."""
        rival, times = self._rival(predicted), MARGIN_FACTOR if self.objective == "kl" else 1.0
        looks = self.evaluator.predictions.count_chunks("search") - 1
        for found in self._grown(policy):
            if len(found) == len(self._split):
                break
            if rival is not None and significantly_worse(
                self._lost(found), rival, looks=looks, times=times
            ):
                return "raced", accuracy(found, self._split)
        return "complete", accuracy(found, self._split)

    def leads(self, scored: Accuracy, predicted: float) -> bool:
        """Whether a policy may be on the front: nothing that is surely faster is as good."""
        value = trial_value(scored, self.objective)
        return all(
            trial_value(one.trial.accuracy, self.objective) < value
            for one in self._faster(predicted)
        )

    def timed(self, policy: Policy) -> Comparison:
        """Time a policy in turn with the baseline."""
        return self.evaluator.time(policy, TRIAL_BUDGET if policy.reduces else FIRST_BUDGET)

    def _rival(self, predicted: float) -> Tensor | None:
        """What the best that is surely faster loses on each image; None if nothing is."""
        faster = self._faster(predicted)
        if not faster:
            return None
        best = max(faster, key=lambda one: trial_value(one.trial.accuracy, self.objective))
        return self._lost(self.evaluator.predictions.results(best.policy, "search"))

    def _lost(self, found: ImageResults) -> Tensor:
        return best_value(self.objective) - per_image(found, self._split, self.objective)

    def _faster(self, predicted: float) -> list[EvaluatedTrial]:
        return [one for one in self.before if self.ratio(one) * (1 + self.margin) < predicted]

    def _grown(self, policy: Policy) -> Iterator[ImageResults]:
        """Yield the answers to the first block of images, to the first two, and so on."""
        parts: list[ImageResults] = []
        for number in range(self.evaluator.predictions.count_chunks("search")):
            parts.append(self.evaluator.predictions.chunk(policy, "search", number))
            yield join_results(parts)

    @property
    def _split(self) -> Split:
        return self.evaluator.splits.search


def trial_value(scored: Accuracy, objective: Objective) -> float:
    """Return what is to be made large; see `policy.worth`."""
    return objective_value(to_json(scored), objective)


# That none of the looks stops a policy whose images could as well be the rival's.
RACE_LEVEL = 0.95
# Times a rival's divergence that must be proven. What diverges a little more on most images often
# diverges less on the few that hold most of the sum: of the 41 schedules of a small space that
# diverge less than the best that is surely faster, a factor of 1 stopped one, on the true front,
# and this one none, for 11 % more images.
MARGIN_FACTOR = 1.5
FIRST_LOOK = 32  # images: of the ranks of fewer the normal distribution is a poor picture


def significantly_worse(
    losses: Tensor, rival: Tensor, *, looks: int, times: float = 1.0, level: float = RACE_LEVEL
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
    ranks = torch.from_numpy(rankdata(lead[lead != 0].abs().numpy()))
    signed = (ranks * lead[lead != 0].sign()).sum()
    z = NormalDist().inv_cdf(1 - (1 - level) / looks)
    return bool(signed > z * ranks.square().sum().sqrt())


ALIKE = 9  # policies that lost most nearly as much by then, and went on
UNKNOWN = 1.0  # standard error of a log loss when none went on


class LossGrowth(NamedTuple):
    """How the log loss of one policy went on from its first images to all of them."""

    first: float
    more: float


class ExtrapolatedLoss(NamedTuple):
    """A log loss on all images, and its standard error."""

    log_loss: float
    noise: float


def loss_growths(
    whole: Sequence[EvaluatedTrial],
    images: int,
    *,
    evaluator: PolicyEvaluator,
    objective: Objective,
) -> list[LossGrowth]:
    """Return how policies that ran on all images went on from the first `images`."""
    split, found = evaluator.splits.search, list[LossGrowth]()
    for one in whole:
        answers = evaluator.predictions.cached(one.policy, "search", images)
        if answers is not None and one.policy.reduces:
            first = to_log_loss(float(per_image(answers, split, objective).mean()), objective)
            last = to_log_loss(trial_value(one.trial.accuracy, objective), objective)
            found.append(LossGrowth(first, last - first))
    return found


def extrapolate_loss(first: float, growths: Sequence[LossGrowth]) -> ExtrapolatedLoss:
    """Foresee the log loss on all images of a policy that has `first` on a part of them."""
    alike = sorted(growths, key=lambda one: abs(one.first - first))[:ALIKE]
    if not alike:
        return ExtrapolatedLoss(first, UNKNOWN)
    middle = median(one.more for one in alike)
    spread = median(abs(one.more - middle) for one in alike)
    return ExtrapolatedLoss(first + middle, spread + UNKNOWN / len(alike))


# Divergences far below this, in nats, are all the same to a user; shares, below half an image of
# 500. Added to a loss before its logarithm is taken.
LEAST_LOSS = 1e-3

# The least divergence told from none: schedules that lose nothing to speak of still have an order,
# which says what those that take more tokens will lose. In single precision 1e-9 is near rounding.
FINEST_LOSS = 1e-9


def to_log_loss(worth: float, objective: Objective) -> float:
    """Return the logarithm of what a worth falls short of the most."""
    return log(max(0.0, best_value(objective) - worth) + smallest_loss(objective))


def value_from_log_loss(log_loss: float, objective: Objective) -> float:
    """Return the worth that has this log loss."""
    return best_value(objective) - (exp(log_loss) - smallest_loss(objective))


def smallest_loss(objective: Objective) -> float:
    """Return the least loss told from none: shares of images have no finer ones."""
    return FINEST_LOSS if objective in {"kl", "ce"} else LEAST_LOSS
