"""What a policy is worth: its accuracy on a split, its latency beside the baseline's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.accuracy.accuracy import accuracy, paired_accuracy
from tokensearch.accuracy.determinism import check_steady
from tokensearch.accuracy.model_identity import ModelIdentity, model_identity
from tokensearch.accuracy.results import ImageResults
from tokensearch.accuracy.store import AnswerStore
from tokensearch.data.splits import Purpose, Splits
from tokensearch.errors import ModelError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.evaluation.predictions import OnBatch, PredictionCache
from tokensearch.evaluation.prefix_reuse import Batch, PrefixCache, logits_with_reuse
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy
from tokensearch.profiling import SPLIT, Plan, profile
from tokensearch.records.measurements import Accuracy, Cell, Comparison, PairedAccuracy
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder

# Enough for a picture of where time goes, in a few seconds; `tokensearch diff` takes its time.
PROFILING = Plan(TimingBudget(warmup=2, max_rounds=100, seconds=6.0))

GIGA = 10**9
STEADY = 8  # images by which a model is seen to answer the same twice


@dataclass(frozen=True, slots=True)
class ScoredPolicy:
    """A policy's answers on one split, beside those of the baseline."""

    accuracy: Accuracy
    paired: PairedAccuracy


@dataclass(frozen=True)
class PolicyEvaluator:
    """One model, on one device, with its images."""

    model: nn.Module  # the baseline, on the device of the cell, in its dtype
    splits: Splits
    cell: Cell
    seed: int
    store: AnswerStore = field(default_factory=partial(AnswerStore, None))
    cache_gb: float = 1.0  # of activations that policies share

    @cached_property
    def timing(self) -> PolicyTimer:
        """The model on one batch of its images."""
        return PolicyTimer(self.model, self.images, self.cell, self.seed)

    @cached_property
    def identity(self) -> ModelIdentity:
        """Which model it is."""
        return model_identity(self.model)

    @cached_property
    def answering(self) -> PredictionCache:
        """What policies make of the images, remembered."""
        return PredictionCache(
            self.splits,
            Policy(runtime.describe(self.model)),
            self.identity.digest,
            self.cell.dtype,
            self.cell.device,
            self._logits,
            self.store,
        )

    def check_steady(self, name: str) -> None:
        """Refuse a model that does not answer the same twice: ModelError."""
        split = self.splits.search
        images, _ = split.part(0, min(STEADY, len(split)))
        check_steady(self.model, images.to(self.cell.device, self._dtype), name=name)

    def score(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        limit: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> ScoredPolicy:
        """Accuracy on a split, or on its first `limit` images."""
        return self.scored(
            self.answering.answers(policy, purpose, limit=limit, on_batch=on_batch), purpose
        )

    def scored(self, found: ImageResults, purpose: Purpose) -> ScoredPolicy:
        """Count what is right among answers to the first images of a split."""
        split = self.splits.of(purpose)
        return ScoredPolicy(accuracy(found, split), paired_accuracy(found, split))

    def time(self, policy: Policy, budget: TimingBudget) -> Comparison:
        """Latency in the cell, in turn with the baseline."""
        return self.timing.time(policy, budget)

    def time_model(self, module: nn.Module, images: Tensor, budget: TimingBudget) -> Comparison:
        """Latency of another model on images of its own, in turn with the baseline."""
        return self.timing.time_model(module, images, budget)

    def profile(self, policies: Mapping[str, Policy], folder: RunFolder) -> tuple[Profile, ...]:
        """Where passes under some policies spend their time, in turn; leaves a TensorBoard folder.

        Compiled passes can no longer be told apart by block: eager ones stand in for them.
        """
        splits = self.cell.backend in SPLIT
        return profile(
            self.model,
            policies,
            images=self.images,
            cell=self.cell if splits else replace(self.cell, backend="eager"),
            plan=PROFILING,
            folder=folder.profiles / "tensorboard",
        )

    @cached_property
    def _reuse(self) -> PrefixCache:
        return PrefixCache(round(self.cache_gb * GIGA))

    @torch.inference_mode()
    def _logits(
        self,
        policy: Policy,
        purpose: Purpose,
        images: range,
        load: Callable[[], Tensor],
    ) -> Tensor:
        """Logits for a stretch of images, from the deepest block that an earlier pass shares.

        Only while searching: finalists are few, and have no steps in common to speak of.
        """
        batch = Batch(
            self.splits.of(purpose).digest,
            images.start,
            len(images),
            (3, *self.images.shape[-2:]),
            lambda: load().to(self.cell.device, self._dtype),
        )
        with runtime.applied(self.timing.candidate, policy) as model:
            if purpose == "search" and policy.reduces and self._resumes:
                return logits_with_reuse(model, batch, self._reuse)
            whole: Tensor = model(batch.images())
            return whole

    @cached_property
    def _resumes(self) -> bool:
        """Whether passes of this model can begin in the middle."""
        if self.cache_gb <= 0:
            return False
        try:
            runtime.check_resumes(self.timing.candidate, (3, *self.images.shape[-2:]))
        except ModelError:
            return False
        return True

    @property
    def _dtype(self) -> torch.dtype:
        kind: torch.dtype = getattr(torch, self.cell.dtype)
        return kind

    @cached_property
    def images(self) -> Tensor:
        """One batch of real images for timing; a split smaller than it is repeated."""
        images, _ = next(self.splits.search.batches(self.cell.batch))
        repeats = -(-self.cell.batch // len(images))
        whole = images.repeat(repeats, 1, 1, 1)[: self.cell.batch]
        return whole.to(self.cell.device, self._dtype)
