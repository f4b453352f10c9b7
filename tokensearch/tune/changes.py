"""What a training has changed: accuracy before and after, image by image, against one baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokensearch.accuracy.accuracy import Results, accuracy, compare_results
from tokensearch.data.splits import Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy
from tokensearch.records.measurements import PairedAccuracy, Score

HELD_AGAINST: tuple[Purpose, ...] = ("search", "select")  # one decides, fresh images tell


@dataclass(frozen=True)
class ChangedAccuracy:
    """Accuracy under one policy before and after, both against the model as it was."""

    policy: Policy
    before: Score
    after: Score
    paired: PairedAccuracy  # after, in comparison with before
    gain: float  # of the objective, in the mean over images; above 0 is better


def compare_change(
    evaluator: PolicyEvaluator, policy: Policy, purpose: Purpose, results: Sequence[Results]
) -> ChangedAccuracy:
    """Hold the results of before and after on one split against each other."""
    before, after = results
    split = evaluator.splits.of(purpose)
    old, new = (each.per_image(split, evaluator.objective).mean().item() for each in results)
    return ChangedAccuracy(
        policy,
        accuracy(before, split),
        accuracy(after, split),
        compare_results(after, before, split),
        new - old,
    )


def compare_policies(
    evaluator: PolicyEvaluator, before: Policy, after: Policy, purpose: Purpose
) -> ChangedAccuracy:
    """Hold the same model under two policies against each other on one split."""
    results = [evaluator.predictions.results(each, purpose) for each in (before, after)]
    return compare_change(evaluator, after, purpose, results)


def is_better(changes: Sequence[ChangedAccuracy]) -> bool:
    """Whether the objective has become better, in the mean over policies."""
    return sum(changed.gain for changed in changes) > 0
