"""Latency of policies beside the baseline, and the compiled models it needs."""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure import (
    MachineMonitor,
    Run,
    TimingBudget,
    add_cautions,
    add_self_comparison_caution,
    clock_for,
    compare,
    compare_samples,
    make_pass_turn,
    measure_launching,
    time_interleaved,
    warm_device,
)
from tokensearch.policy import ModelSpec, Policy
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import COMPILED, REPLAYED, Backend, Cell, Comparison, Latency
from tokensearch.runtime import with_backend
from tokensearch.runtime.backends import Forward

# A compiled candidate of twelve blocks leaves about 15 MB behind in torch 2.15 until all that was
# compiled is forgotten; then the baseline must be compiled anew.
FORGET_AFTER = 16


@dataclass
class CompiledModels:
    """Makes pairs of passes. The baseline is prepared once, each candidate for itself."""

    model: nn.Module  # the baseline
    backend: Backend
    _baseline: Forward | None = None
    _candidates: int = 0

    def pair(
        self, candidate: nn.Module, images: Tensor, theirs: Tensor | None = None
    ) -> tuple[Run, Run]:
        """Return a pass of the baseline and one of `candidate`, both warmed up.

        `candidate` must not be given another policy while they are in use.

        images  of every pass of the baseline; the same in every call
        theirs  of the candidate, where it takes others
        """
        own, baseline = images if theirs is None else theirs, self.baseline(images)
        self._candidates += 1
        # No two are replayed at one time, and answers are copied out: all graphs share one memory.
        run = with_backend(candidate, self.backend, own, sharing=self._baseline)
        if self.backend == "eager" and own.device.type != "cpu":
            run(
                own
            )  # libraries plan for new token counts: tens of milliseconds for each of cuDNN's
        return baseline, partial(run, own)

    def baseline(self, images: Tensor) -> Run:
        """Return a pass of the baseline, warmed up."""
        if self._baseline is None or self._worn:
            self._forget()
            self._baseline = with_backend(self.model, self.backend, images)
        return partial(self._baseline, images)

    @property
    def _worn(self) -> bool:
        return self.backend in COMPILED and self._candidates >= FORGET_AFTER

    def _forget(self) -> None:
        if self._candidates:
            torch.compiler.reset()
        self._candidates = 0


TOGETHER = FORGET_AFTER  # policies to a round: each has a compiled model of its own meanwhile


@dataclass(frozen=True)
class PolicyTimer:
    """One model and one batch of images, on one device."""

    model: nn.Module  # the baseline, on the device of the cell, in its dtype
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
    def launching(self) -> LaunchCost | None:
        """What launching a pass of the baseline takes; None on a CPU, or replayed."""
        place = torch.device(self.cell.device)
        if place.type != "cuda" or self.cell.backend in REPLAYED:
            return None
        with torch.inference_mode():
            return measure_launching(self._pairs.baseline(self.images), clock_for(place))

    def time(self, policy: Policy, budget: TimingBudget) -> Comparison:
        """Time a policy in turn with the baseline.

        The baseline in turn with itself shows what the noise alone makes of it.
        """
        with torch.inference_mode(), runtime.applied(self.candidate, policy) as model:
            found = self._compared(model, self.images, budget)
        return found if policy.reduces else add_self_comparison_caution(found)

    def time_together(
        self,
        policies: Sequence[Policy],
        budget: TimingBudget,
        *,
        tell: Callable[[int, float], None],
    ) -> tuple[Comparison, ...]:
        """Time at most `TOGETHER` policies and the baseline, each once in every round.

        In little more than half the time that pairs take, since the baseline is timed once
        for all. All share its weights, as one model in use does with itself.

        tell  hears of the rounds so far, and of the seconds of their passes
        """
        if len(policies) > TOGETHER:
            raise ValueError(f"{len(policies)} policies are too many for a round of {TOGETHER}")
        place = torch.device(self.cell.device)
        clock, watch = clock_for(place, self.cell.cache), MachineMonitor(place)

        def look(rounds: int, seconds: float) -> None:
            watch.look()
            tell(rounds, seconds)

        with torch.inference_mode(), ExitStack() as stack:
            runs = self._runs(policies, stack)
            warmup = warm_device(runs[0], clock) + budget.warmup
            watch.start()
            taken = time_interleaved(
                [make_pass_turn(run, clock) for run in runs], budget, seed=self.seed, tell=look
            )
            conditions = watch.stop()
        passes = [Latency(tuple(one.ms for one in each), warmup) for each in taken]
        found = [compare_samples(passes[0], each, seed=self.seed) for each in passes[1:]]
        return tuple(
            add_cautions(one, conditions)
            if policy.reduces
            else add_self_comparison_caution(add_cautions(one, conditions))
            for policy, one in zip(policies, found, strict=True)
        )

    def _runs(self, policies: Sequence[Policy], stack: ExitStack) -> list[Run]:
        """A pass of the baseline, and one under each policy while the stack is open."""
        weights = {id(one): one for one in chain(self.model.parameters(), self.model.buffers())}
        runs: list[Run] = []
        for policy in policies:
            twin = copy.deepcopy(self.model, dict(weights))
            baseline, run = self._pairs.pair(
                stack.enter_context(runtime.applied(twin, policy)), self.images
            )
            runs = [baseline, *runs[1:], run]
        return runs

    def time_model(self, model: nn.Module, images: Tensor, budget: TimingBudget) -> Comparison:
        """Time another model, on images of its own, in turn with the baseline."""
        with torch.inference_mode():
            return self._compared(model, images, budget)

    def _compared(self, model: nn.Module, images: Tensor, budget: TimingBudget) -> Comparison:
        place = torch.device(self.cell.device)
        baseline, candidate = self._pairs.pair(model, self.images, images)
        return compare(
            baseline,
            candidate,
            clock=clock_for(place, self.cell.cache),
            budget=budget,
            seed=self.seed,
            watch=MachineMonitor(place),
        )

    @cached_property
    def _pairs(self) -> CompiledModels:
        return CompiledModels(self.model, self.cell.backend)
