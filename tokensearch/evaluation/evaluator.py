"""Evaluate a policy: accuracy on a split, latency compared with the baseline's, profile."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import inf

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.accuracy.accuracy import Results, accuracy, paired_accuracy
from tokensearch.accuracy.determinism import check_deterministic
from tokensearch.accuracy.embeddings import RIGHT_BY
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.accuracy.store import PredictionStore
from tokensearch.data.splits import Purpose, Splits
from tokensearch.errors import ModelError
from tokensearch.evaluation.latency import OtherModel, PolicyTimer
from tokensearch.evaluation.predictions import OnBatch, PredictionCache
from tokensearch.evaluation.prefix_reuse import Batch, PrefixCache, logits_with_reuse
from tokensearch.measure import TellRounds, TimingBudget, tell_nobody
from tokensearch.measure.allocator import give_back_freed_memory
from tokensearch.policy import Objective, Policy
from tokensearch.profiling import SPLIT, ProfilePlan, profile
from tokensearch.records.measurements import Cell, Comparison, PairedAccuracy, Score
from tokensearch.records.policy_evaluation import CountSpread
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import ModelIdentity

# Enough to see where time goes, in a few seconds; `tokensearch diff` measures longer.
PROFILING = ProfilePlan(TimingBudget(warmup=2, max_rounds=100, seconds=6.0))

GIGA = 10**9
DETERMINISM_IMAGES = 8  # that tell whether a model is deterministic


@dataclass(frozen=True, slots=True)
class ScoredPolicy:
    """Accuracy of a policy on one split, alone and compared with the baseline."""

    accuracy: Score
    paired: PairedAccuracy


@dataclass(frozen=True)
class PolicyEvaluator:
    """One model, on one device, with its images."""

    model: nn.Module  # the baseline, on the device of the cell, in its dtype
    splits: Splits
    cell: Cell
    seed: int
    store: PredictionStore = field(default_factory=partial(PredictionStore, None))
    cache_gb: float = 0.75  # of activations that policies share
    objective: Objective = "kl"  # says how outputs are read: as scores of classes, or embeddings
    dense: bool = False  # whether the model returns its tokens, on the whole grid

    @cached_property
    def timing(self) -> PolicyTimer:
        """The model on one batch of its images."""
        return PolicyTimer(self.model, self.images, self.cell, self.seed, dense=self.dense)

    @cached_property
    def identity(self) -> ModelIdentity:
        """Which model it is."""
        return model_identity(self.model)

    @cached_property
    def predictions(self) -> PredictionCache:
        """Predictions for the images under any policy, cached."""
        return PredictionCache(
            self.splits,
            Policy(runtime.describe(self.model)),
            self.identity.digest,
            self.cell.dtype,
            self.cell.device,
            self._logits,
            self.store,
            RIGHT_BY.get(self.objective),
        )

    def check_deterministic(self, name: str) -> None:
        """Refuse a model that is not deterministic: ModelError."""
        split = self.splits.search
        images, _ = split.part(0, min(DETERMINISM_IMAGES, len(split)))
        check_deterministic(self.model, images.to(self.cell.device, self._dtype), name=name)

    def score(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        first: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> ScoredPolicy:
        """Return the accuracy on a split, or on its first `first` images."""
        results = self.predictions.results(policy, purpose, first=first, on_batch=on_batch)
        return self.score_results(results, purpose)

    def score_results(self, results: Results, purpose: Purpose) -> ScoredPolicy:
        """Return the accuracy of results for the first images of a split."""
        split = self.splits.of(purpose)
        return ScoredPolicy(accuracy(results, split), paired_accuracy(results, split))

    @torch.inference_mode()
    def count_tokens(self, policy: Policy, purpose: Purpose) -> tuple[CountSpread, ...]:
        """Return how many patch tokens blocks hand on, over the images of a split."""
        with runtime.applied(self.timing.candidate, policy) as model:
            batches = self._read_batches(purpose)
            counts = [runtime.count_tokens(model, images).cpu() for images in batches]
        return spread_of_counts(torch.cat(counts))

    @torch.inference_mode()
    def find_overflow(self, policy: Policy) -> int | None:
        """Return the first block that hands on what is not finite, on images of `search`."""
        with runtime.applied(self.timing.candidate, policy, dense=self.dense) as model:
            for images in self._read_batches("search"):
                for block, tokens in enumerate(runtime.follow_blocks(model, images)):
                    if not tokens.isfinite().all():
                        return block
        return None

    def load_batches(self, purpose: Purpose) -> tuple[Tensor, ...]:
        """Return all images of a split as the model takes them, in batches of the cell's."""
        return tuple(self._read_batches(purpose))

    def _read_batches(self, purpose: Purpose) -> Iterator[Tensor]:
        for images, _ in self.splits.of(purpose).batches(self.cell.batch):
            yield images.to(self.cell.device, self._dtype)

    def time(
        self, policy: Policy, budget: TimingBudget, *, tell: TellRounds = tell_nobody
    ) -> Comparison:
        """Time a policy in the cell, in turn with the baseline."""
        return self.timing.time(policy, budget, tell=tell)

    def time_model(self, other: OtherModel, budget: TimingBudget) -> Comparison:
        """Time another model on images of its own, in turn with the baseline."""
        return self.timing.time_model(other, budget)

    def time_together(
        self,
        policies: Sequence[Policy],
        budget: TimingBudget,
        *,
        others: Sequence[OtherModel] = (),
        tell: TellRounds = tell_nobody,
    ) -> tuple[Comparison, ...]:
        """Time policies, then other models, in rounds with one baseline, until all are precise."""
        return self.timing.time_together(
            policies, budget, others=others, tell=tell, until_precise=True
        )

    def profile(
        self, policies: Mapping[str, Policy], folder: RunFolder, *, seconds: float = inf
    ) -> tuple[Profile, ...]:
        """Profile passes under some policies, in turn; writes a TensorBoard folder.

        seconds  of passes, at most

        Compiled passes cannot be split by block, so eager ones are profiled in their place.
        """
        can_split, budget = self.cell.backend in SPLIT, PROFILING.budget
        return profile(
            self.model,
            policies,
            images=self.images,
            cell=self.cell if can_split else replace(self.cell, backend="eager"),
            plan=replace(PROFILING, budget=replace(budget, seconds=min(budget.seconds, seconds))),
            folder=folder.profiles / "tensorboard",
        )

    def forget_activations(self) -> None:
        """Free the activations that policies share, once nothing more is searched."""
        self._prefix_cache.clear()
        give_back_freed_memory()

    @cached_property
    def _prefix_cache(self) -> PrefixCache:
        return PrefixCache(round(self.cache_gb * GIGA))

    @torch.inference_mode()
    def _logits(
        self,
        policy: Policy,
        purpose: Purpose,
        images: range,
        load: Callable[[], Tensor],
    ) -> Tensor:
        """Return logits for a range of images, resumed at the deepest block that is cached.

        Passes are resumed on the search split alone: finalists are few and share hardly any steps.
        """
        batch = Batch(
            self.splits.of(purpose).digest,
            images.start,
            len(images),
            (3, *self.images.shape[-2:]),
            lambda: load().to(self.cell.device, self._dtype),
        )
        with runtime.applied(self.timing.candidate, policy, dense=self.dense) as model:
            if purpose == "search" and policy.reduces and self._can_resume:
                return logits_with_reuse(model, batch, self._prefix_cache)
            logits: Tensor = model(batch.images())
            return logits

    @cached_property
    def _can_resume(self) -> bool:
        """Whether passes of this model can start at a block within."""
        if self.cache_gb <= 0 or self.dense:
            return False
        try:
            runtime.check_resumes(self.timing.candidate, (3, *self.images.shape[-2:]))
        except ModelError:
            return False
        return True

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.cell.dtype)
        return dtype

    @cached_property
    def images(self) -> Tensor:
        """One batch of real images for timing; a split smaller than a batch is repeated."""
        images, _ = next(self.splits.search.batches(self.cell.batch))
        repeats = -(-self.cell.batch // len(images))
        batch = images.repeat(repeats, 1, 1, 1)[: self.cell.batch]
        return batch.to(self.cell.device, self._dtype)


def spread_of_counts(counts: Tensor) -> tuple[CountSpread, ...]:
    """Return the spread behind every block.

    counts  (images, blocks) as `runtime.count_tokens` gives them
    """
    return tuple(
        CountSpread(
            block,
            column.mean().item(),
            column.quantile(0.5).item(),
            column.quantile(0.9).item(),
            int(column.max()),
        )
        for block, column in enumerate(counts.double().unbind(dim=1))
    )
