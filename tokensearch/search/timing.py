"""Latency of policies in one cell, in turn with the un-reduced model.

The un-reduced model and the candidate are two copies with equal weights that go the same way, so
that neither is timed in the other's caches and nothing is attached while the clock runs. A front is
timed several policies to a round, by copies that share their weights: so many need not fit.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.launch_bound import Launching
from tokensearch.measure import (
    Budget,
    Effort,
    Run,
    Watch,
    clock_for,
    compare,
    concluded,
    doubt_itself,
    doubted,
    heat,
    in_turn,
    launching,
    plain,
)
from tokensearch.policy import ModelSpec, Policy
from tokensearch.records import REPLAYED, Cell, Comparison, Latency
from tokensearch.search.pairs import FORGET_AFTER, Pairs

TOGETHER = FORGET_AFTER  # policies to a round: each has a compiled model of its own meanwhile


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

    @cached_property
    def launching(self) -> Launching | None:
        """What launching a pass of the un-reduced model takes; None on a CPU, or replayed."""
        place = torch.device(self.cell.device)
        if place.type != "cuda" or self.cell.backend in REPLAYED:
            return None
        with torch.inference_mode():
            return launching(self._pairs.baseline(self.images), clock_for(place))

    def time(self, policy: Policy, budget: Budget) -> Comparison:
        """Time a policy in turn with the un-reduced model.

        The un-reduced model in turn with itself shows what the noise alone makes of it.
        """
        with torch.inference_mode(), runtime.applied(self.candidate, policy) as model:
            found = self._compared(model, self.images, budget)
        return found if policy.reduces else doubt_itself(found)

    def time_together(
        self, policies: Sequence[Policy], effort: Effort, *, tell: Callable[[int, float], None]
    ) -> tuple[Comparison, ...]:
        """Time at most `TOGETHER` policies and the un-reduced model, each once in every round.

        In little more than half the time that pairs take, since the un-reduced model is timed once
        for all. All share its weights, as one model in use does with itself.

        tell  hears of the rounds so far, and of the seconds of their passes
        """
        if len(policies) > TOGETHER:
            raise ValueError(f"{len(policies)} policies are too many for a round of {TOGETHER}")
        place = torch.device(self.cell.device)
        clock, watch = clock_for(place, self.cell.cache), Watch(place)

        def look(rounds: int, seconds: float) -> None:
            watch.look()
            tell(rounds, seconds)

        with torch.inference_mode(), ExitStack() as stack:
            runs = self._runs(policies, stack)
            warmup = heat(runs[0], clock) + effort.warmup
            watch.start()
            taken = in_turn([plain(run, clock) for run in runs], effort, seed=self.seed, tell=look)
            conditions = watch.stop()
        passes = [Latency(tuple(one.ms for one in each), warmup) for each in taken]
        found = [concluded(passes[0], each, seed=self.seed) for each in passes[1:]]
        return tuple(
            doubted(one, conditions) if policy.reduces else doubt_itself(doubted(one, conditions))
            for policy, one in zip(policies, found, strict=True)
        )

    def _runs(self, policies: Sequence[Policy], stack: ExitStack) -> list[Run]:
        """A pass of the un-reduced model, and one under each policy while the stack is open."""
        weights = {id(one): one for one in chain(self.model.parameters(), self.model.buffers())}
        runs: list[Run] = []
        for policy in policies:
            twin = copy.deepcopy(self.model, dict(weights))
            baseline, run = self._pairs.pair(
                stack.enter_context(runtime.applied(twin, policy)), self.images
            )
            runs = [baseline, *runs[1:], run]
        return runs

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
