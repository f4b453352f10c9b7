"""Counts that learn: how many tokens each block keeps, by gradient (DiffRate).

Every block has a distribution over counts. What it keeps is the expected count, and the token of a
rank survives with the probability of a count that reaches it, whose derivative the masks carry
(arXiv:2305.17997). The weights stay. Two things differ from the authors' code: distributions begin
where every block keeps the same share and the budget is met, which a short training needs, and at
the end all counts are moved to the budget, so that the answer keeps to it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokensearch.errors import PolicyError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.ops import Tokens, mask_below_rank
from tokensearch.policy import ModelSpec, Policy, Prune, Score, Threshold
from tokensearch.progress import ProgressListener
from tokensearch.runtime import apply, describe, learning_masks
from tokensearch.tune.budget import Budget
from tokensearch.tune.changes import HELD_AGAINST, ChangedAccuracy, compare_policies, is_better
from tokensearch.tune.distillation import FrozenMethod, TrainingJob

GRANULARITY = 4  # tokens from one candidate to the next: DiffRate's
SPREAD = 0.1  # of all tokens, that a distribution begins with: wide enough to move by its edges
# Of the squared miss, as a share of the baseline: DiffRate's 5 per squared GFLOP, for DeiT-S.
BUDGET_WEIGHT = 104.6
HALVINGS = 30  # of the share that all counts are moved by


@dataclass(frozen=True)
class RatesResult:
    """Counts that have learned, beside the same share in every block at the same budget."""

    policy: Policy  # learned, or the constant share where that is better on `search`
    search: ChangedAccuracy  # of the constant share, then of the learned counts
    select: ChangedAccuracy

    @property
    def better(self) -> bool:
        """Whether the counts that have learned are better on `search`."""
        return is_better([self.search])


def tune_rates(
    evaluator: PolicyEvaluator,
    score: Score,
    budget: Budget,
    training: TrainingJob,
    *,
    watcher: ProgressListener,
) -> RatesResult:
    """Train the counts of a prune in every block but the first, within a budget.

    budget  of counts that go between attention and MLP

    Raises:
        PolicyError: The budget is out of reach, or the model has no such score.
        RunError, TrainingError: As `Trainer.run`.
    """
    spec = describe(evaluator.model)
    begun = keep_equal_shares(spec, budget)
    before = make_policy(spec, begun, score)
    training.begin("tune rates", evaluator, [before])
    model = copy.deepcopy(evaluator.model).float().requires_grad_(requires_grad=False)
    learning = LearningRates(apply(model, _scaffold(spec, score)), spec, begun, budget)
    trainer = training.trainer(
        FrozenMethod(learning, training.distillation, learning.price), evaluator
    )
    with learning_masks(model, learning):
        trainer.run(watcher)
    trained = trainer.result
    assert isinstance(trained, LearningRates)
    after = make_policy(spec, scale_rates(spec, trained.kept(), budget), score)
    watcher.stage("accuracy of constant and learned rates, on search and select")
    search, select = (
        compare_policies(evaluator, before, after, purpose) for purpose in HELD_AGAINST
    )
    return RatesResult(after if is_better([search]) else before, search, select)


class LearningRates(nn.Module):
    """Logits of counts, block by block, and a model whose surplus tokens are masked."""

    def __init__(
        self, model: nn.Module, spec: ModelSpec, begun: Sequence[float], budget: Budget
    ) -> None:
        super().__init__()
        device = next(model.parameters()).device
        counts = torch.arange(spec.patch_tokens, 0, -GRANULARITY, device=device)
        self.candidates = nn.Buffer(counts.float(), persistent=False)
        spread = max(GRANULARITY, SPREAD * spec.patch_tokens)
        self.logits = nn.ParameterList(
            -0.5 * ((self.candidates - count) / spread).square() for count in begun[1:]
        )
        self.budget, self.spec = budget, spec
        self._baseline = budget.whole  # asked once: of a cost table it is a prediction
        self._model = [model]  # whose weights and mode stay: no module of this one

    def forward(self, images: Tensor) -> Tensor:
        """Run images through."""
        output: Tensor = self._model[0](images)
        return output

    def mask(
        self, step: Threshold, tokens: Tokens, score: Tensor, *, prefix: int, least: int
    ) -> Tokens:
        """Mask all but the best-scored tokens, as many as the block's expected count."""
        del least  # no count is below 1
        chances = self.logits[step.block - 1].softmax(dim=0)
        ranks = torch.arange(1, self.spec.patch_tokens + 1, device=chances.device)
        survival = ((self.candidates >= ranks[:, None]) * chances).sum(dim=1)
        keep = round(self.expected()[step.block - 1].item())
        return mask_below_rank(tokens, score, keep=keep, survival=survival, prefix=prefix)

    def expected(self) -> Tensor:
        """Expected count of every block but the first: (blocks - 1,)."""
        stacked = torch.stack(list(self.logits)).softmax(dim=1)
        return stacked @ self.candidates

    def counts(self) -> Tensor:
        """Patch tokens that each block hands on: (blocks,).

        They never rise. A count above the one before has its derivative all the same, or it would
        never come down to where it matters (DiffRate).
        """
        own = torch.cat([self.candidates[:1], self.expected()])
        return own + (own.detach().cummin(dim=0).values - own.detach())

    def kept(self) -> list[float]:
        """Patch tokens that each block hands on, as numbers."""
        kept: list[float] = self.counts().detach().double().tolist()
        return kept

    def price(self) -> tuple[Tensor, Tensor]:
        """Return what the counts cost, as a share of the baseline, and the penalty for a miss."""
        cost = self.budget.cost(self.counts()[None]) / self._baseline
        miss = cost - self.budget.limit / self._baseline
        return cost, BUDGET_WEIGHT * miss.square()


def keep_equal_shares(spec: ModelSpec, budget: Budget) -> list[float]:
    """Return counts of which every block but the first keeps the same share, at the budget.

    PolicyError where one token from block 1 on costs more, or all cost no more than the budget.
    """
    whole, last = float(spec.patch_tokens), spec.blocks - 1

    def counts(share: float) -> list[float]:
        return [max(1.0, whole * share**block) for block in range(last + 1)]

    _check_reach(spec, budget, counts(0.0))
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (low, share) if _cost(counts(share), budget) > budget.limit else (share, high)
    return counts(low)


def scale_rates(spec: ModelSpec, kept: Sequence[float], budget: Budget) -> list[float]:
    """Return counts whose removed or kept tokens are scaled alike, so that they meet the budget."""
    whole = float(spec.patch_tokens)

    def moved(by: float) -> list[float]:  # -1: one token; 0: as they are; 1: all
        ends = [kept[0]] + [1.0 if by < 0 else whole] * (len(kept) - 1)
        return [float(round(k + abs(by) * (e - k))) for k, e in zip(kept, ends, strict=True)]

    low, high = -1.0, 1.0
    for _ in range(HALVINGS):
        by = (low + high) / 2
        low, high = (low, by) if _cost(moved(by), budget) > budget.limit else (by, high)
    return moved(low)


def make_policy(spec: ModelSpec, counts: Sequence[float], score: Score) -> Policy:
    """Return a policy that prunes to the counts, with a step where a block leaves fewer."""
    left, steps = spec.patch_tokens, []
    for block, count in enumerate(counts):
        keep = max(1, int(count))  # down: the budget is kept
        if keep < left:
            steps.append(Prune(block, keep, score))
            left = keep
    return Policy(spec, tuple(steps))


def _scaffold(spec: ModelSpec, score: Score) -> Policy:
    """The policy whose masks learn: a place to act in every block but the first."""
    steps = (
        Threshold(block, spec.patch_tokens, 0.0, score, at="between")
        for block in range(1, spec.blocks)
    )
    return Policy(spec, tuple(steps), counts="per_image")


def _check_reach(spec: ModelSpec, budget: Budget, fewest: Sequence[float]) -> None:
    least = _cost(fewest, budget)
    if not least <= budget.limit < budget.whole:
        raise PolicyError(
            f"a budget of {budget.say(budget.limit)} is out of reach: {spec.name} takes "
            f"{budget.say(least)} with one patch token from block 1 on, and the baseline takes "
            f"{budget.whole:.3g}; choose between them"
        )


def _cost(counts: Sequence[float], budget: Budget) -> float:
    return budget.cost(torch.tensor([counts], dtype=torch.float64)).item()
