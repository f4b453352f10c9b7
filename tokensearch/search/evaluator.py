"""What a policy is worth: its accuracy on a split, its latency beside the un-reduced model's.

The un-reduced model and the candidate are two copies with equal weights that go the same way, so
that neither is timed in the other's caches and nothing is attached while the clock runs.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from tokensearch import runtime
from tokensearch.data.splits import Purpose, Split, Splits
from tokensearch.evaluate import Forward, Predictions, accuracy, paired, predict
from tokensearch.evaluate.accuracy import OnBatch
from tokensearch.measure import Budget, Effort, Watch, clock_for, compare, doubt_itself
from tokensearch.policy import Policy
from tokensearch.profiles import Profile
from tokensearch.profiling import Plan, profile
from tokensearch.records import Accuracy, Cell, Comparison, Paired
from tokensearch.run_folder import RunFolder
from tokensearch.search.pairs import Pairs

# Images per pass when only answers count. Larger passes were no faster per image on two CPU cores.
ACCURACY_BATCH = 32

# Enough for a picture of where time goes, in a few seconds; `tokensearch diff` takes its time.
PROFILING = Plan(Effort(warmup=2, least=12, most=100, seconds=6.0))


@dataclass(frozen=True, slots=True)
class Scored:
    """A policy's answers on one split, beside those of the un-reduced model."""

    predictions: Predictions
    accuracy: Accuracy
    paired: Paired


@dataclass(frozen=True)
class Evaluator:
    """One model, on one device, with its images."""

    model: nn.Module  # un-reduced, on the device of the cell, in its dtype
    splits: Splits
    cell: Cell
    seed: int
    _known: dict[Purpose, Predictions] = field(default_factory=dict)
    _twin: list[nn.Module] = field(default_factory=list)

    @property
    def candidate(self) -> nn.Module:
        """The copy that follows policies."""
        if not self._twin:
            self._twin.append(copy.deepcopy(self.model))
        return self._twin[0]

    def baseline(
        self, purpose: Purpose, *, limit: int | None = None, on_batch: OnBatch | None = None
    ) -> Predictions:
        """Answers of the un-reduced model, asked for once per image."""
        split = self.splits.of(purpose)
        wanted = len(split) if limit is None else min(limit, len(split))
        known = self._known.get(purpose)
        if known is None or len(known.labels) < wanted:
            known = self._predict(self.model, split, limit=limit, on_batch=on_batch)
            self._known[purpose] = known
        return Predictions(known.log_probs[:wanted], known.labels[:wanted])

    def score(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        limit: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> Scored:
        """Accuracy on a split, or on its first `limit` images."""
        split = self.splits.of(purpose)
        if not policy.reduces:
            return self._scored(self.baseline(purpose, limit=limit, on_batch=on_batch), purpose)
        with runtime.applied(self.candidate, policy) as model:
            found = self._predict(model, split, limit=limit, on_batch=on_batch)
        return self._scored(found, purpose)

    def complete(self, policy: Policy, screened: Scored) -> Scored:
        """Accuracy on the whole search split, given that of its first images."""
        first, split = len(screened.predictions.labels), self.splits.search
        if first >= len(split):
            return screened
        if not policy.reduces:
            return self.score(policy, "search")
        rest = _part(split, first, len(split))
        with runtime.applied(self.candidate, policy) as model:
            later = self._predict(model, rest)
        return self._scored(_joined(screened.predictions, later), "search")

    def time(self, policy: Policy, budget: Budget) -> Comparison:
        """Latency in the cell, in turn with the un-reduced model.

        The un-reduced model in turn with itself shows what the noise alone makes of it.
        """
        place = torch.device(self.cell.device)
        images = self.images
        with torch.inference_mode(), runtime.applied(self.candidate, policy) as model:
            baseline, candidate = self._pairs.pair(model, images)
            found = compare(
                baseline,
                candidate,
                clock=clock_for(place, self.cell.cache),
                budget=budget,
                seed=self.seed,
                watch=Watch(place),
            )
        return found if policy.reduces else doubt_itself(found)

    def profile(self, policies: Mapping[str, Policy], folder: RunFolder) -> tuple[Profile, ...]:
        """Where passes under some policies spend their time, in turn; leaves a TensorBoard folder.

        Always eager passes: what is compiled or replayed can no longer be told apart by block.
        """
        return profile(
            self.model,
            policies,
            images=self.images,
            cell=replace(self.cell, backend="eager"),
            plan=PROFILING,
            folder=folder.profiles / "tensorboard",
        )

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.model, self.cell.backend)

    def _predict(
        self,
        forward: Forward,
        split: Split,
        *,
        limit: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> Predictions:
        return predict(
            forward,
            split,
            batch=ACCURACY_BATCH,
            device=self.cell.device,
            dtype=getattr(torch, self.cell.dtype),
            limit=limit,
            on_batch=on_batch,
        )

    def _scored(self, found: Predictions, purpose: Purpose) -> Scored:
        split, same = self.splits.of(purpose), self.baseline(purpose, limit=len(found.labels))
        return Scored(found, accuracy(found, same, split), paired(found, same, split))

    @cached_property
    def images(self) -> Tensor:
        """One batch of real images for timing; a split smaller than it is repeated."""
        images, _ = next(self.splits.search.batches(self.cell.batch))
        repeats = -(-self.cell.batch // len(images))
        whole = images.repeat(repeats, 1, 1, 1)[: self.cell.batch]
        return whole.to(self.cell.device, getattr(torch, self.cell.dtype))


def _part(split: Split, start: int, stop: int) -> Split:
    images: Subset[tuple[Tensor, int]] = Subset(split.dataset, range(start, stop))  # type: ignore[arg-type]  # any map-style data set
    return Split(split.purpose, images, split.digest, split.labelled)


def _joined(first: Predictions, later: Predictions) -> Predictions:
    return Predictions(
        torch.cat([first.log_probs, later.log_probs]), torch.cat([first.labels, later.labels])
    )
