"""Race a policy against faster ones, stop it early, extrapolate its loss to all images."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import NormalDist, median
from typing import NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor

from tokensearch.accuracy.accuracy import Results, accuracy, join_results
from tokensearch.data.splits import Split
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import TimingBudget
from tokensearch.policy import DISTANCES, Objective, Policy, best_value, objective_value
from tokensearch.records.measurements import Comparison, Score, Trial, TrialState, to_json
from tokensearch.stats.bootstrap import TRIAL_PAIRS, VERDICT_PAIRS

# Pairs of passes of a trial: enough for the forecast to learn from; finalists get more. There is no
# warm-up, which took a third of the passes: a median tolerates a slow first one. The baseline's own
# trial is warmed up and longer, since a target in milliseconds is compared with it.
TRIAL_BUDGET = TimingBudget(
    warmup=0,
    min_rounds=TRIAL_PAIRS,
    max_rounds=40,
    seconds=1.5,
    first_look=VERDICT_PAIRS,
    precision=0.02,
)
FIRST_BUDGET = replace(TRIAL_BUDGET, warmup=2, min_rounds=VERDICT_PAIRS)


@dataclass(frozen=True, slots=True)
class EvaluatedTrial:
    """A trial with its policy."""

    trial: Trial
    policy: Policy


@dataclass(frozen=True)
class Race:
    """The policies that a new one has to beat, and the error that predicted latencies may have."""

    evaluator: PolicyEvaluator
    objective: Objective
    complete: Sequence[EvaluatedTrial]  # all that ran on every image
    margin: float  # relative error that a predicted latency is allowed
    ratio: Callable[[EvaluatedTrial], float]  # latency of one of them, as known by now

    def run(self, policy: Policy, predicted: float) -> tuple[TrialState, Score]:
        """Predict chunk after chunk, until the end or until the policy is significantly worse.

        predicted  its latency as a share of the baseline's
        """
        incumbent = self._incumbent(predicted)
        margin_factor = MARGIN_FACTOR if self.objective in {"kl", "cosine"} else 1.0
        n_looks = self.evaluator.predictions.count_chunks("search") - 1
        for results in self._growing_results(policy):
            if len(results) == len(self._split):
                break
            if incumbent is not None and significantly_worse(
                self._losses(results), incumbent, n_looks=n_looks, margin_factor=margin_factor
            ):
                return "raced", accuracy(results, self._split)
        return "complete", accuracy(results, self._split)

    def may_lead(self, accuracy: Score, predicted: float) -> bool:
        """Whether a policy may be on the front: no policy that is surely faster is as good."""
        value = trial_value(accuracy, self.objective)
        return all(
            trial_value(evaluated.trial.accuracy, self.objective) < value
            for evaluated in self._faster(predicted)
        )

    def time(self, policy: Policy) -> Comparison:
        """Time a policy in turn with the baseline."""
        return self.evaluator.time(policy, TRIAL_BUDGET if policy.reduces else FIRST_BUDGET)

    def _incumbent(self, predicted: float) -> Tensor | None:
        """Return the losses of the best policy that is surely faster, (N,); None without one."""
        faster = self._faster(predicted)
        if not faster:
            return None
        best = max(faster, key=lambda one: trial_value(one.trial.accuracy, self.objective))
        return self._losses(self.evaluator.predictions.results(best.policy, "search"))

    def _losses(self, results: Results) -> Tensor:
        return best_value(self.objective) - results.per_image(self._split, self.objective)

    def _faster(self, predicted: float) -> list[EvaluatedTrial]:
        return [one for one in self.complete if self.ratio(one) * (1 + self.margin) < predicted]

    def _growing_results(self, policy: Policy) -> Iterator[Results]:
        """Yield the results of the first chunk of images, of the first two, and so on."""
        parts: list[Results] = []
        for number in range(self.evaluator.predictions.count_chunks("search")):
            parts.append(self.evaluator.predictions.chunk(policy, "search", number))
            yield join_results(parts)

    @property
    def _split(self) -> Split:
        return self.evaluator.splits.search


def trial_value(accuracy: Score, objective: Objective) -> float:
    """Return the value that is to be maximised; see `policy.objective_value`."""
    return objective_value(to_json(accuracy), objective)


# Probability that none of the looks stops a policy whose losses equal the incumbent's.
RACE_LEVEL = 0.95
# Multiple of the incumbent's divergence that must be exceeded significantly. What diverges a little
# more on most images often diverges less on the few that hold most of the sum. Of the 41 schedules
# of a small space that diverge less than the best that is surely faster, a factor of 1 stopped one,
# on the true front; this factor stopped none, for 11 % more images.
MARGIN_FACTOR = 1.5
FIRST_LOOK = 32  # images: for the ranks of fewer the normal approximation is poor


def significantly_worse(
    losses: Tensor,
    incumbent: Tensor,
    *,
    n_looks: int,
    margin_factor: float = 1.0,
    level: float = RACE_LEVEL,
) -> bool:
    """Whether a policy loses significantly more than `margin_factor` times what another loses.

    The mean loss has to be larger as well.

    losses         (M,) of the policy, image by image
    incumbent      (M,) or more, of the policy that it races against
    n_looks        number of tests in all: each takes its share of the error (Bonferroni)
    margin_factor  `MARGIN_FACTOR` for divergences; 1 for losses that do not depend on the schedule
                   alone, such as wrong predictions

    The test is by signed ranks: a few images hold most of any divergence, and would hide the rest
    from a test of means. Source: Wilcoxon 1945, by the normal approximation, without the images
    that do not differ.
    """
    own, other = losses.double(), incumbent[: len(losses)].double()
    if len(own) < FIRST_LOOK or own.mean() <= other.mean():
        return False
    excess = own - margin_factor * other
    excess = excess[excess != 0]
    ranks = torch.from_numpy(rankdata(excess.abs().numpy()))
    statistic = (ranks * excess.sign()).sum()
    z = NormalDist().inv_cdf(1 - (1 - level) / n_looks)
    return bool(statistic > z * ranks.square().sum().sqrt())


NEIGHBOURS = 9  # complete trials with the nearest log loss on the same first images
NOISE_WITHOUT_NEIGHBOURS = 1.0  # standard error of a log loss where no trial was completed


class LossGrowth(NamedTuple):
    """How the log loss of one policy grew from its first images to all of them."""

    first: float
    growth: float


class ExtrapolatedLoss(NamedTuple):
    """A log loss on all images, and its standard error."""

    log_loss: float
    noise: float


def loss_growths(
    complete: Sequence[EvaluatedTrial],
    images: int,
    *,
    evaluator: PolicyEvaluator,
    objective: Objective,
) -> list[LossGrowth]:
    """Return how the losses of policies that ran on all images grew from the first `images`."""
    split, growths = evaluator.splits.search, list[LossGrowth]()
    for evaluated in complete:
        results = evaluator.predictions.cached(evaluated.policy, "search", images)
        if results is not None and evaluated.policy.reduces:
            first = to_log_loss(float(results.per_image(split, objective).mean()), objective)
            last = to_log_loss(trial_value(evaluated.trial.accuracy, objective), objective)
            growths.append(LossGrowth(first, last - first))
    return growths


def extrapolate_loss(first: float, growths: Sequence[LossGrowth]) -> ExtrapolatedLoss:
    """Return the log loss on all images expected of a policy with `first` on a part of them."""
    nearest = sorted(growths, key=lambda one: abs(one.first - first))[:NEIGHBOURS]
    if not nearest:
        return ExtrapolatedLoss(first, NOISE_WITHOUT_NEIGHBOURS)
    middle = median(one.growth for one in nearest)
    spread = median(abs(one.growth - middle) for one in nearest)
    return ExtrapolatedLoss(first + middle, spread + NOISE_WITHOUT_NEIGHBOURS / len(nearest))


# Divergences far below this, in nats, are all the same to a user; so are shares below half an image
# of 500. It is added to a loss before its logarithm is taken.
LEAST_LOSS = 1e-3

# The least divergence that counts as a loss. Schedules with hardly any loss still have an order,
# which tells what those that take more tokens will lose. In single precision 1e-9 is near rounding.
FINEST_LOSS = 1e-9


def to_log_loss(value: float, objective: Objective) -> float:
    """Return the logarithm of how far a value of the objective is below the best one."""
    return log(max(0.0, best_value(objective) - value) + smallest_loss(objective))


def value_from_log_loss(log_loss: float, objective: Objective) -> float:
    """Return the value of the objective that has this log loss."""
    return best_value(objective) - loss_from_log_loss(log_loss, objective)


def loss_from_log_loss(log_loss: float, objective: Objective) -> float:
    """Return how far below the best value that is."""
    return exp(log_loss) - smallest_loss(objective)


def smallest_loss(objective: Objective) -> float:
    """Return the least loss that counts: shares of images have no finer ones."""
    return FINEST_LOSS if objective in DISTANCES else LEAST_LOSS
