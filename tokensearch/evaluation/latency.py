"""Time policies in turn with the baseline, with the compiled models that this needs."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.export import prepare_backend
from tokensearch.measure import (
    MachineMonitor,
    Run,
    Sample,
    TellRounds,
    TimingBudget,
    add_cautions,
    add_self_comparison_caution,
    bootstrap_ratio,
    clock_for,
    compare,
    compare_samples,
    make_pass_turn,
    measure_launching,
    tell_nobody,
    time_interleaved,
    warm_device,
)
from tokensearch.policy import ModelSpec, Policy
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import COMPILED, REPLAYED, Backend, Cell, Comparison, Latency
from tokensearch.runtime.backends import Forward

# A compiled candidate of twelve blocks leaves about 15 MB behind in torch 2.15 until torch's
# compiler is reset. After a reset the baseline must be compiled anew.
RESET_AFTER = 16


@dataclass
class CompiledModels:
    """Makes pairs of passes. The baseline is prepared once, each candidate by itself."""

    model: nn.Module  # the baseline
    backend: Backend
    _baseline: Forward | None = None
    _candidates: int = 0

    def pair(
        self,
        candidate: nn.Module,
        images: Tensor,
        candidate_images: Tensor | None = None,
        backend: Backend | None = None,
    ) -> tuple[Run, Run]:
        """Return a pass of the baseline and one of `candidate`, both warmed up.

        `candidate` must not be given another policy while they are in use.

        images            of every pass of the baseline; the same in every call
        candidate_images  of the candidate, where it takes others
        backend           of the candidate, where it is another
        """
        own = images if candidate_images is None else candidate_images
        baseline = self.baseline(images)
        self._candidates += 1
        # All graphs share one memory: no two are replayed at one time, and logits are copied out.
        chosen = backend or self.backend
        sharing = self._baseline if chosen == self.backend else None
        run = prepare_backend(candidate, chosen, own, sharing=sharing)
        if chosen == "eager" and own.device.type != "cpu":
            # Libraries plan for new token counts: tens of milliseconds for each of cuDNN's plans.
            run(own)
        return baseline, partial(run, own)

    def baseline(self, images: Tensor) -> Run:
        """Return a pass of the baseline, warmed up."""
        if self._baseline is None or self._must_reset:
            self._reset()
            self._baseline = prepare_backend(self.model, self.backend, images)
        return partial(self._baseline, images)

    @property
    def _must_reset(self) -> bool:
        return self.backend in COMPILED and self._candidates >= RESET_AFTER

    def _reset(self) -> None:
        if self._candidates:
            torch.compiler.reset()
        self._candidates = 0


@dataclass(frozen=True)
class OtherModel:
    """A model beside the baseline, as it is, and the images it takes."""

    module: nn.Module  # on the device of the cell, in its dtype, in eval mode
    images: Tensor  # (B, 3, rows, columns)
    backend: Backend | None = None  # None: that of the cell


MAX_TOGETHER = RESET_AFTER  # policies in a round: each has a compiled model of its own


@dataclass(frozen=True)
class PolicyTimer:
    """One model and one batch of images, on one device."""

    model: nn.Module  # the baseline, on the device of the cell, in its dtype
    images: Tensor  # (B, 3, rows, columns), B the cell's batch
    cell: Cell
    seed: int
    dense: bool = False  # whether policies are to leave the whole grid of tokens
    _copy: list[nn.Module] = field(default_factory=list)

    @property
    def candidate(self) -> nn.Module:
        """The copy that follows policies."""
        if not self._copy:
            with torch.inference_mode(mode=False):  # weights made in it cannot be exported
                self._copy.append(copy.deepcopy(self.model))
        return self._copy[0]

    @cached_property
    def spec(self) -> ModelSpec:
        """The model's geometry; weights do not matter for latency."""
        return runtime.describe(self.model)

    @cached_property
    def launching(self) -> LaunchCost | None:
        """Cost of launching a pass of the baseline; None on a CPU, or where passes are replayed."""
        device = torch.device(self.cell.device)
        if device.type != "cuda" or self.cell.backend in REPLAYED:
            return None
        with torch.inference_mode():
            return measure_launching(self._pairs.baseline(self.images), clock_for(device))

    def time(
        self, policy: Policy, budget: TimingBudget, *, tell: TellRounds = tell_nobody
    ) -> Comparison:
        """Time a policy in turn with the baseline; `tell` as below.

        The baseline in turn with itself shows what noise alone does.
        """
        with (
            torch.inference_mode(),
            runtime.applied(self.candidate, policy, dense=self.dense) as model,
        ):
            comparison = self._compare(OtherModel(model, self.images), budget, tell)
        return comparison if policy.reduces else add_self_comparison_caution(comparison)

    def time_together(
        self,
        policies: Sequence[Policy],
        budget: TimingBudget,
        *,
        tell: TellRounds,
        others: Sequence[OtherModel] = (),
        until_precise: bool = False,
    ) -> tuple[Comparison, ...]:
        """Time at most `MAX_TOGETHER` policies and the baseline, each once in every round.

        This takes little more than half the time of pairs, since the baseline is timed once for
        all. Copies share its weights, as passes of one model do; exported files hold their own.

        tell           called with the number of rounds so far, and the seconds of their passes
        others         timed in the same rounds; their comparisons come last
        until_precise  end once every ratio is known to the budget's precision
        """
        count = len(policies) + len(others)
        if count > MAX_TOGETHER:
            raise ValueError(f"{count} models are too many for a round of {MAX_TOGETHER}")
        device = torch.device(self.cell.device)
        clock, monitor = clock_for(device, self.cell.cache), MachineMonitor(device)

        def look(rounds: int, seconds: float) -> None:
            monitor.look()
            tell(rounds, seconds)

        with torch.inference_mode(), ExitStack() as stack:
            runs = self._runs(policies, others, stack)
            warmup = warm_device(runs[0], clock) + budget.warmup
            monitor.start()
            taken = time_interleaved(
                [make_pass_turn(run, clock) for run in runs],
                budget,
                seed=self.seed,
                enough=partial(_all_precise, budget) if until_precise else _never,
                tell=look,
            )
            conditions = monitor.stop()
        baseline, *candidates = [Latency(tuple(p.ms for p in passes), warmup) for passes in taken]
        compared = [
            add_cautions(compare_samples(baseline, latency, seed=self.seed), conditions)
            for latency in candidates
        ]
        for index, policy in enumerate(policies):
            if not policy.reduces:
                compared[index] = add_self_comparison_caution(compared[index])
        return tuple(compared)

    def _runs(
        self, policies: Sequence[Policy], others: Sequence[OtherModel], stack: ExitStack
    ) -> list[Run]:
        """Return a pass of the baseline, and one of each that is timed while the stack is open."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        weights = {id(tensor): tensor for tensor in tensors}
        runs: list[Run] = []
        for policy in policies:
            model = copy.deepcopy(self.model, dict(weights))
            baseline, run = self._pairs.pair(
                stack.enter_context(runtime.applied(model, policy, dense=self.dense)), self.images
            )
            runs = [baseline, *runs[1:], run]
        for other in others:
            baseline, run = self._pairs.pair(other.module, self.images, other.images, other.backend)
            runs = [baseline, *runs[1:], run]
        return runs

    def time_model(self, other: OtherModel, budget: TimingBudget) -> Comparison:
        """Time another model, on images of its own, in turn with the baseline."""
        with torch.inference_mode():
            return self._compare(other, budget)

    def _compare(
        self, other: OtherModel, budget: TimingBudget, tell: TellRounds = tell_nobody
    ) -> Comparison:
        device = torch.device(self.cell.device)
        baseline, candidate = self._pairs.pair(
            other.module, self.images, other.images, other.backend
        )
        return compare(
            baseline,
            candidate,
            clock=clock_for(device, self.cell.cache),
            budget=budget,
            seed=self.seed,
            watch=MachineMonitor(device),
            tell=tell,
        )

    @cached_property
    def _pairs(self) -> CompiledModels:
        return CompiledModels(self.model, self.cell.backend)


def _all_precise(budget: TimingBudget, samples: list[list[Sample]]) -> bool:
    """Whether every candidate's ratio is known to the precision that is wanted."""
    baseline, *candidates = [tuple(sample.ms for sample in passes) for passes in samples]
    intervals = (bootstrap_ratio(baseline, passes, seed=0) for passes in candidates)
    return all((high - low) / 2 <= budget.precision for low, high in intervals)


def _never(_: object) -> bool:
    return False
