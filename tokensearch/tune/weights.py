"""Fine-tuning: weights that make up for the tokens that a policy removes."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as pack_weights
from torch import Tensor, nn

from tokensearch.data.splits import Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.files import write_whole
from tokensearch.policy import Policy, check_static, save
from tokensearch.progress import ProgressListener
from tokensearch.runtime import applied, apply, describe, remove
from tokensearch.tune.changes import HELD_AGAINST, ChangedAccuracy, compare_change, is_better
from tokensearch.tune.distillation import Distillation, TrainingJob
from tokensearch.tune.loop import TrainingBatch


@dataclass(frozen=True)
class WeightsResult:
    """What fine-tuning has changed; all figures are against the model as it was, without policy."""

    search: tuple[ChangedAccuracy, ...]  # one for each policy
    select: tuple[ChangedAccuracy, ...]
    weights: Path | None  # the new weights, where they are better on `search`
    policies: tuple[Path, ...]  # with the hash of those weights, one file each

    @property
    def better(self) -> bool:
        """Whether the objective is better on `search`: else the weights of before are kept."""
        return is_better(self.search)


@dataclass(frozen=True)
class WeightsMethod:
    """Trains all weights of a model under a policy, or under one drawn anew for every step."""

    module: nn.Module
    policies: tuple[Policy, ...]
    distillation: Distillation
    seed: int

    def begin_step(self, step: int) -> None:
        """Follow the policy of this step."""
        drawn = np.random.default_rng((self.seed, step)).integers(len(self.policies))
        if step == 0 or len(self.policies) > 1:
            apply(self.module, self.policies[drawn])

    def loss(self, forward: Callable[[Tensor], Tensor], batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        return self.distillation.loss(forward(batch.images), batch)


def tune_weights(
    evaluator: PolicyEvaluator,
    policies: Sequence[Policy],
    training: TrainingJob,
    watcher: ProgressListener,
) -> WeightsResult:
    """Fine-tune a copy of the model under static policies, and keep it if it is better on `search`.

    In the folder lie the training and, where weights are better, `model.safetensors` and
    `policy.json`, or `policy-1.json` and so on.

    Raises:
        PolicyError: A policy keeps other counts for other images, or is for another model.
        RunError: The folder cannot be written, or belongs to another training.
        TrainingError: A loss is not finite.
    """
    for policy in policies:
        check_static(policy, "fine-tuning")
    training.begin("tune weights", evaluator, policies)
    student = copy.deepcopy(evaluator.model).float().requires_grad_(requires_grad=True)
    anyones = tuple(map(without_weights, policies))
    apply(student, anyones[0])
    method = WeightsMethod(student, anyones, training.distillation, training.plan.seed)
    trainer = training.trainer(method, evaluator)
    trainer.run(watcher)
    watcher.stage("accuracy before and after, on search and select")
    tuned = remove(trainer.result).eval().to(next(evaluator.model.parameters()).dtype)
    search, select = (_compare(evaluator, tuned, policies, purpose) for purpose in HELD_AGAINST)
    weights, paths = None, tuple[Path, ...]()
    if is_better(search):
        weights, paths = _save(tuned, policies, training.folder.path)
    return WeightsResult(search, select, weights, paths)


def _compare(
    evaluator: PolicyEvaluator, tuned: nn.Module, policies: Sequence[Policy], purpose: Purpose
) -> tuple[ChangedAccuracy, ...]:
    """Hold new weights against the old ones on one split, under each policy."""
    predictions, images = evaluator.predictions, len(evaluator.splits.of(purpose))
    changes = []
    for policy in policies:
        run = partial(_run, evaluator, tuned, without_weights(policy))
        before = predictions.results(policy, purpose)
        after = predictions.results_of_alternative("tuned", purpose, run, first=images)
        changes.append(compare_change(evaluator, policy, purpose, (before, after)))
    return tuple(changes)


@torch.inference_mode()
def _run(evaluator: PolicyEvaluator, tuned: nn.Module, policy: Policy, images: Tensor) -> Tensor:
    with applied(tuned, policy) as model:
        output: Tensor = model(images.to(next(evaluator.model.parameters())))
        return output


def _save(
    tuned: nn.Module, policies: Sequence[Policy], folder: Path
) -> tuple[Path, tuple[Path, ...]]:
    """Write weights, then the policies with their hash and without evidence, which was of others'.

    A front would need evidence: `tokensearch evaluate` measures each policy.
    """
    weights = folder / "model.safetensors"
    state = {name: value.float().cpu().contiguous() for name, value in tuned.state_dict().items()}
    write_whole(weights, pack_weights(state))
    digest, paths = describe(tuned).weights, list[Path]()
    for number, policy in enumerate(policies, start=1):
        model = replace(policy.model, weights=digest)
        name = "policy.json" if len(policies) == 1 else f"policy-{number}.json"
        save(replace(policy, model=model, evidence=()), folder / name)
        paths.append(folder / name)
    return weights, tuple(paths)


def without_weights(policy: Policy) -> Policy:
    """Return a policy that warns of no weights: those that it is applied to are being changed."""
    return replace(policy, model=replace(policy.model, weights=None))
