"""Latency of policies in one cell, in turn with the un-reduced model.

The un-reduced model and the candidate are two copies with equal weights that go the same way, so
that neither is timed in the other's caches and nothing is attached while the clock runs.
"""

import copy
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure import Budget, Watch, clock_for, compare, doubt_itself
from tokensearch.policy import ModelSpec, Policy
from tokensearch.records import Cell, Comparison
from tokensearch.search.pairs import Pairs


@dataclass(frozen=True)
class Timing:
    """One model and one batch of images, on one device."""

    model: nn.Module  # un-reduced, on the device of the cell, in its dtype
    images: Tensor  # (B, 3, rows, columns), B the cell's batch
    cell: Cell
    seed: int
    _twin: list[nn.Module] = field(default_factory=list)

    @property
    def candidate(self) -> nn.Module:
        """The copy that follows policies."""
        if not self._twin:
            self._twin.append(copy.deepcopy(self.model))
        return self._twin[0]

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's geometry; its weights do not matter to a clock."""
        return runtime.describe(self.model)

    def time(self, policy: Policy, budget: Budget) -> Comparison:
        """Time a policy in turn with the un-reduced model.

        The un-reduced model in turn with itself shows what the noise alone makes of it.
        """
        with torch.inference_mode(), runtime.applied(self.candidate, policy) as model:
            found = self._compared(model, self.images, budget)
        return found if policy.reduces else doubt_itself(found)

    def time_model(self, model: nn.Module, images: Tensor, budget: Budget) -> Comparison:
        """Time another model, on images of its own, in turn with the un-reduced model."""
        with torch.inference_mode():
            return self._compared(model, images, budget)

    def _compared(self, model: nn.Module, images: Tensor, budget: Budget) -> Comparison:
        place = torch.device(self.cell.device)
        baseline, candidate = self._pairs.pair(model, self.images, images)
        return compare(
            baseline,
            candidate,
            clock=clock_for(place, self.cell.cache),
            budget=budget,
            seed=self.seed,
            watch=Watch(place),
        )

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.model, self.cell.backend)
