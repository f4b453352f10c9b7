"""Mergers that learn: queries and their norm, with the model frozen."""

import copy
from dataclasses import dataclass, replace

from torch import Tensor, nn

from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Merger, Policy, Tensors
from tokensearch.progress import ProgressListener
from tokensearch.runtime import apply
from tokensearch.runtime.host import as_host
from tokensearch.runtime.learned import make_trainable
from tokensearch.tune.changes import HELD_AGAINST, ChangedAccuracy, compare_policies, is_better
from tokensearch.tune.distillation import FrozenMethod, TrainingJob
from tokensearch.tune.merger import begin_merger, to_raw
from tokensearch.tune.weights import without_weights

FIRST_IMAGES = 64  # whose tokens queries begin at: some ten thousand of them


@dataclass(frozen=True)
class MergerResult:
    """A merger, and its accuracy before and after it learned."""

    policy: Policy  # trained, or as it began where that is better on `search`
    search: ChangedAccuracy
    select: ChangedAccuracy

    @property
    def better(self) -> bool:
        """Whether training has made it better on `search`."""
        return is_better([self.search])


def tune_merger(
    evaluator: PolicyEvaluator, step: Merger, training: TrainingJob, watcher: ProgressListener
) -> MergerResult:
    """Begin a merger at the centres of tokens, train it, and keep what is better on `search`.

    Raises:
        ModelError: No block follows to which the tokens go.
        PolicyError: The model has fewer tokens.
        RunError, TrainingError: As `Trainer.run`.
    """
    watcher.stage("queries begin at the centres of tokens")
    seed = training.plan.seed
    images, _ = training.images.draw(0, FIRST_IMAGES)
    like = next(evaluator.model.parameters())
    begun = begin_merger(evaluator.model, images.to(like), step, seed=seed)
    training.begin("tune merger", evaluator, [begun])
    model = copy.deepcopy(evaluator.model).float().requires_grad_(requires_grad=False)
    module = LearningTensors(model, begun)
    trainer = training.trainer(FrozenMethod(module, training.distillation), evaluator)
    trainer.run(watcher)
    trained = trainer.result
    assert isinstance(trained, LearningTensors)
    policy = trained.rewrite(begun)
    watcher.stage("accuracy before and after, on search and select")
    search, select = (
        compare_policies(evaluator, begun, policy, purpose) for purpose in HELD_AGAINST
    )
    kept = policy if is_better([search]) else begun
    return MergerResult(kept, search, select)


class LearningTensors(nn.Module):
    """What the steps of a policy have learned, as parameters, and the model that follows it."""

    def __init__(self, model: nn.Module, policy: Policy) -> None:
        super().__init__()
        self._model = [apply(model, without_weights(policy))]  # whose mode stays as it is
        blocks = as_host(model).blocks
        named = dict(
            pair
            for index, block in enumerate(blocks)
            for pair in make_trainable(block, policy.steps_of(index))
        )
        self.names = tuple(named)
        self.values = nn.ParameterList(named.values())

    def forward(self, images: Tensor) -> Tensor:
        """Run images through."""
        output: Tensor = self._model[0](images)
        return output

    def rewrite(self, policy: Policy) -> Policy:
        """Return the policy with the tensors of now."""
        raw = {name: to_raw(value) for name, value in zip(self.names, self.values, strict=True)}
        return replace(policy, tensors=Tensors.pack(raw))
