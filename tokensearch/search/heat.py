"""How one policy is tried: raced against those that are faster, and timed if it leads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from tokensearch.data.splits import Split
from tokensearch.evaluate import Answers, accuracy, joined, per_image
from tokensearch.measure import Budget
from tokensearch.policy import Objective, Policy, most, worth
from tokensearch.records import Accuracy, Comparison, Trial, TrialState, to_json
from tokensearch.search.evaluator import Evaluator
from tokensearch.search.racing import CLEARLY, proven_worse

# Pairs of a trial: enough to teach a forecast; finalists get more. Without warm-up, which took a
# third of the passes: a median bears a slow first one. The un-reduced model's own trial is warm,
# for a target in milliseconds is held against it.
TRIAL_BUDGET = Budget(warmup=0, min_pairs=12, max_pairs=40, seconds=1.5, precision=0.02)
FIRST_BUDGET = replace(TRIAL_BUDGET, warmup=2)


@dataclass(frozen=True, slots=True)
class Ran:
    """A trial so far, with its policy at hand."""

    trial: Trial
    policy: Policy


@dataclass(frozen=True)
class Heat:
    """The policies that a new one has to beat, and by how much predictions may be off."""

    evaluator: Evaluator
    objective: Objective
    before: Sequence[Ran]  # all that were run on every image
    margin: float  # relative error that a predicted latency is allowed
    ratio: Callable[[Ran], float]  # latency of one of them, as known by now

    def raced(self, policy: Policy, predicted: float) -> tuple[TrialState, Accuracy]:
        """Ask about block after block, until the end or until it is proven not to be worth it."""
        rival, times = self._rival(predicted), CLEARLY if self.objective == "kl" else 1.0
        looks = self.evaluator.answering.blocks("search") - 1
        for found in self._grown(policy):
            if len(found) == len(self._split):
                break
            if rival is not None and proven_worse(
                self._lost(found), rival, looks=looks, times=times
            ):
                return "raced", accuracy(found, self._split)
        return "complete", accuracy(found, self._split)

    def leads(self, scored: Accuracy, predicted: float) -> bool:
        """Whether a policy may be on the front: nothing that is surely faster is as good."""
        value = worth_of(scored, self.objective)
        return all(
            worth_of(one.trial.accuracy, self.objective) < value for one in self._faster(predicted)
        )

    def timed(self, policy: Policy) -> Comparison:
        """Time a policy in turn with the un-reduced model."""
        return self.evaluator.time(policy, TRIAL_BUDGET if policy.reduces else FIRST_BUDGET)

    def _rival(self, predicted: float) -> Tensor | None:
        """What the best that is surely faster loses on each image; None if nothing is."""
        faster = self._faster(predicted)
        if not faster:
            return None
        best = max(faster, key=lambda one: worth_of(one.trial.accuracy, self.objective))
        return self._lost(self.evaluator.answering.answers(best.policy, "search"))

    def _lost(self, found: Answers) -> Tensor:
        return most(self.objective) - per_image(found, self._split, self.objective)

    def _faster(self, predicted: float) -> list[Ran]:
        return [one for one in self.before if self.ratio(one) * (1 + self.margin) < predicted]

    def _grown(self, policy: Policy) -> Iterator[Answers]:
        """Yield the answers to the first block of images, to the first two, and so on."""
        parts: list[Answers] = []
        for number in range(self.evaluator.answering.blocks("search")):
            parts.append(self.evaluator.answering.block(policy, "search", number))
            yield joined(parts)

    @property
    def _split(self) -> Split:
        return self.evaluator.splits.search


def worth_of(scored: Accuracy, objective: Objective) -> float:
    """Return what is to be made large; see `policy.worth`."""
    return worth(to_json(scored), objective)
