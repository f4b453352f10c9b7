"""Thresholds that learn, and what has become better by it.

They begin where calibration ends, so that the budget is met before the first step. What learns is
their logarithm, by a rate of its own; the weights stay. Training moves off the budget, so that at
the end all are moved back to it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tokensearch.accuracy.accuracy import compare_results
from tokensearch.errors import PolicyError
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.ops import Tokens, mask_above
from tokensearch.policy import Policy, Score, Threshold
from tokensearch.progress import ProgressListener, tell_images
from tokensearch.records.measurements import PairedAccuracy
from tokensearch.runtime import apply, describe, learning_masks
from tokensearch.tune.budget import Budget
from tokensearch.tune.changes import ChangedAccuracy, compare_policies, is_better
from tokensearch.tune.distillation import FrozenMethod, TrainingJob
from tokensearch.tune.thresholds import (
    CalibratedThresholds,
    calibrate_thresholds,
    check_reach,
    freeze,
    move_to_budget,
    thresholds_of,
)
from tokensearch.tune.weights import without_weights

BUDGET_WEIGHT = 9.1  # of the miss as a share of the baseline: AS-ViT's 2 per GFLOP, for DeiT-S
TEMPERATURE = 0.1  # of a threshold: AS-ViT's 1e-4 is 0.02 to 0.5 of those that it learns
LEAST = 1e-12  # a threshold of 0, below which nothing is, has no logarithm


@dataclass(frozen=True)
class ThresholdsResult:
    """Thresholds, and their accuracy on `select` beside that of their static twin."""

    calibrated: CalibratedThresholds  # or learned, where that is better on `search`
    select: Mapping[str, ScoredPolicy]  # "thresholds" and "static"
    lead: PairedAccuracy  # of the thresholds over their static twin, on `select`
    search: ChangedAccuracy | None = None  # calibrated, then learned; None where none learned
    learned: CalibratedThresholds | None = None  # whether they are kept or not


def find_thresholds(
    evaluator: PolicyEvaluator,
    *,
    sites: Sequence[int],
    budget: Budget,
    score: Score,
    watcher: ProgressListener,
    training: TrainingJob | None = None,
) -> ThresholdsResult:
    """Calibrate thresholds on `search`, let them learn, and compare them with their static twin.

    PolicyError where the budget is out of reach, said before the first pass; and as `Trainer.run`.
    """
    check_reach(describe(evaluator.model), sites, budget)
    watcher.stage(f"calibrating thresholds after blocks {', '.join(map(str, sites))}")
    calibrated = calibrate_thresholds(
        evaluator.model,
        evaluator.load_batches("search"),
        sites=sites,
        budget=budget,
        score=score,
        tell=watcher.note,
    )
    learned = changed = None
    kept = calibrated
    if training is not None:
        try:
            learned = learn_thresholds(
                evaluator, calibrated.policy, budget, training, watcher=watcher
            )
        except PolicyError as error:
            watcher.caution(f"what was learned is left out, since it cannot be moved back: {error}")
    if learned is not None:
        changed = compare_policies(evaluator, calibrated.policy, learned.policy, "search")
        kept = learned if is_better([changed]) else calibrated
    policies = {"thresholds": kept.policy, "static": freeze(kept.policy)}
    scored = {}
    for name, policy in policies.items():
        watcher.stage(f"accuracy on the select split: {name}", unit="images")
        scored[name] = evaluator.score(policy, "select", on_batch=tell_images(watcher))
    mine, twin = (evaluator.predictions.results(each, "select") for each in policies.values())
    lead = compare_results(mine, twin, evaluator.splits.select)
    return ThresholdsResult(kept, scored, lead, changed, learned)


def learn_thresholds(
    evaluator: PolicyEvaluator,
    policy: Policy,
    budget: Budget,
    training: TrainingJob,
    *,
    watcher: ProgressListener,
) -> CalibratedThresholds:
    """Train the thresholds of a policy, and move them to the budget on `search`."""
    training.begin("tune thresholds", evaluator, [policy])
    model = copy.deepcopy(evaluator.model).float().requires_grad_(requires_grad=False)
    learning = LearningThresholds(apply(model, without_weights(policy)), policy, budget)
    trainer = training.trainer(
        FrozenMethod(learning, training.distillation, learning.price), evaluator
    )
    with learning_masks(model, learning):
        trainer.run(watcher)
    trained = trainer.result
    assert isinstance(trained, LearningThresholds)
    watcher.stage("moving thresholds to the budget")
    batches = evaluator.load_batches("search")
    return move_to_budget(
        evaluator.model, batches, trained.rewrite(policy), budget, tell=watcher.note
    )


class LearningThresholds(nn.Module):
    """Logarithms of thresholds, and a model whose tokens below them are masked."""

    def __init__(self, model: nn.Module, policy: Policy, budget: Budget) -> None:
        super().__init__()
        steps = thresholds_of(policy)
        values = torch.tensor([max(step.threshold, LEAST) for step in steps])
        device = next(model.parameters()).device
        self.logarithms = nn.Parameter(values.log().to(device))
        self.budget, self.spec = budget, policy.model
        self._baseline = budget.whole  # asked once: of a cost table it is a prediction
        self._site = {step.block: site for site, step in enumerate(steps)}
        self._model = [model]  # whose weights and mode stay: no module of this one
        self._sizes: dict[int, Tensor] = {}

    def forward(self, images: Tensor) -> Tensor:
        """Run images through."""
        output: Tensor = self._model[0](images)
        return output

    def mask(
        self, step: Threshold, tokens: Tokens, score: Tensor, *, prefix: int, least: int
    ) -> Tokens:
        """Mask what is below the threshold of a step, and note which tokens are left."""
        masked = mask_above(
            tokens,
            score,
            threshold=self.logarithms[self._site[step.block]].exp(),
            temperature=TEMPERATURE,
            prefix=prefix,
            least=least,
        )
        assert masked.size is not None
        self._sizes[step.block] = masked.size
        return masked

    def price(self) -> tuple[Tensor, Tensor]:
        """Return what the images of the last pass cost, and the penalty for a miss.

        The cost is that of the mean image, as a share of the baseline's.
        """
        prefix, counts, left = self.spec.prefix_tokens, [], None
        for block in range(self.spec.blocks):
            if block in self._sizes:
                left = self._sizes[block][:, prefix:, 0].sum(dim=1)
            counts.append(left)
        whole = self.logarithms.new_full((1,), self.spec.patch_tokens)
        images = len(next(iter(self._sizes.values())))
        stacked = torch.stack(
            [whole.expand(images) if count is None else count for count in counts], dim=1
        )
        cost = self.budget.cost(stacked) / self._baseline
        return cost, BUDGET_WEIGHT * (cost - self.budget.limit / self._baseline).abs()

    def rewrite(self, policy: Policy) -> Policy:
        """Return the policy with the thresholds of now."""
        values = self.logarithms.detach().double().exp().tolist()
        steps = (
            replace(step, threshold=value)
            for step, value in zip(thresholds_of(policy), values, strict=True)
        )
        return replace(policy, steps=tuple(steps))
