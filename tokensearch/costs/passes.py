"""The passes of a sweep, on a model: whole, or split by block."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from statistics import median
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure import (
    PhaseTimer,
    Run,
    clock_for,
    phase_border_ms,
    subtract_timer_cost,
    timer_cost_ms,
    warm_device,
)
from tokensearch.policy import Policy
from tokensearch.profiling import copy_sharing_weights
from tokensearch.records.measurements import Cell
from tokensearch.records.profile import Phase, Scope

# Norms and projections stay within the half of the block that they belong to.
_WANTED = frozenset({"bias", "attention", "scoring", "selecting", "gathering", "merging", "mlp"})
# A GPU's allocator and libraries meet new shapes first; on a CPU a first pass of a schedule took as
# long as the second (ratio 1.002, DeiT-S, batch 8).
_FIRST_PASSES = 2
# A capture takes dozens of passes' time and a replay one's, so each graph is replayed some times:
# what counts is the middle one.
_REPLAYS = 5
# Of what the host took just before: how long the device is kept busy for it to run ahead.
AHEAD = 1.5
_PRICE_PASSES = 5  # split and plain, of the baseline

Parts = Mapping[Scope, float]


class SweepPasses(Protocol):
    """Runs one pass at a time; tests put a machine here whose costs are known."""

    def whole_ms(self, policy: Policy) -> float:
        """Milliseconds of a plain pass, as a user runs it."""
        ...

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Scope, float]:
        """Milliseconds of every part of a pass; with `floor`, steps only cut tokens off."""
        ...

    def elapsed_s(self) -> float:
        """Seconds since the first pass, all that was not timed included."""
        ...


class Queue(Protocol):
    """Passes that the host enqueues and a device executes later, as a GPU's are unless replayed.

    Their `split_ms` is what the device alone takes, launches left out: behind a delay that lets the
    host run ahead.
    """

    def enqueue_ms(self, policy: Policy) -> float:
        """Milliseconds that the host takes to enqueue a plain pass."""
        ...


class ModelPasses:
    """Passes of one model and one batch, on the device where both are; eager, or captured anew.

    One copy of the model, which shares its weights, changes its policy from pass to pass: applied
    once, its blocks are checked and the rest takes milliseconds.
    """

    def __init__(self, model: nn.Module, images: Tensor, cell: Cell) -> None:
        self._images, self._model = images, runtime.remove(copy_sharing_weights(model))
        self._device, self._unreduced = torch.device(cell.device), Policy(runtime.describe(model))
        self._clock = clock_for(self._device)
        self._start_s = perf_counter()
        self._graph: runtime.Forward | None = None
        if cell.backend == "cudagraph":
            self._graph = self._capture()  # of the baseline; all others use its memory
        warm_device(self._whole(self._unreduced), self._clock)

    def whole_ms(self, policy: Policy) -> float:
        """Milliseconds of a plain pass; blocks without a step run the host's own code."""
        run = self._whole(policy)
        return median(self._clock.time_ms(run) for _ in range(_REPLAYS if self._graph else 1))

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Scope, float]:
        """Milliseconds between the borders of what is measured apart, less the borders' price."""
        return subtract_timer_cost(*self._split(policy, floor=floor), self._border_ms)

    @property
    def queue(self) -> Queue | None:
        """Itself where the host enqueues operators one by one, else nothing."""
        return self if self._device.type == "cuda" and self._graph is None else None

    def enqueue_ms(self, policy: Policy) -> float:
        """Milliseconds on the host, which does not wait for the device."""
        return self._enqueued_ms(self._whole(policy))

    def elapsed_s(self) -> float:
        """Seconds on the wall."""
        return perf_counter() - self._start_s

    def _whole(self, policy: Policy) -> Run:
        """A pass under `policy`, once the device has met it."""
        runtime.remove(self._model)
        if policy.reduces:
            runtime.apply(self._model, policy)
        if self._graph is None:
            return self._met()
        return partial(self._capture() if policy.reduces else self._graph, self._images)

    def _split(self, policy: Policy, *, floor: bool) -> tuple[Parts, Parts]:
        """Milliseconds of every part of a pass, and the borders whose price is in it."""
        stamps = PhaseTimer(self._device)

        def around(block: int, phase: Phase) -> AbstractContextManager[object]:
            return stamps.around(block, phase) if phase in _WANTED else nullcontext()

        runtime.apply(self._model, policy)
        with runtime.phase_ranges(self._model, around, floor=floor):
            return self._middle(stamps), stamps.shares()

    def _middle(self, stamps: PhaseTimer) -> Parts:
        """The parts of a pass; of replays, those of the middle one."""
        if self.queue is not None:
            run = self._met()
            return stamps.split(run, ahead_ms=AHEAD * self._enqueued_ms(run))
        if self._graph is None:
            return stamps.split(self._met())
        replay = stamps.captured(self._model, self._images, sharing=self._graph)
        replay()
        passes = [stamps.split(replay) for _ in range(_REPLAYS)]
        return sorted(passes, key=lambda parts: sum(parts.values()))[_REPLAYS // 2]

    @cached_property
    def _border_ms(self) -> float:
        """What a border adds to a pass of the baseline; on a CPU not worth its time."""
        if self._device.type == "cpu":
            return 0.0
        longer_ms, borders = [], 0.0
        for _ in range(_PRICE_PASSES):
            parts, shares = self._split(self._unreduced, floor=False)
            longer_ms.append(sum(parts.values()) - self._plain_ms())
            borders = sum(shares.values())
        most_ms = phase_border_ms(self._device, captured=self._graph is not None)
        return timer_cost_ms(median(longer_ms), borders, most_ms)

    def _plain_ms(self) -> float:
        """What split passes of the baseline are held against: a plain one, as they go."""
        if self.queue is None:
            return self.whole_ms(self._unreduced)
        runtime.remove(self._model)
        return sum(self._middle(PhaseTimer(self._device)).values())

    def _enqueued_ms(self, run: Run) -> float:
        torch.cuda.synchronize(self._device)
        start_s = perf_counter()
        run()
        return 1000 * (perf_counter() - start_s)

    def _capture(self) -> runtime.Forward:
        return runtime.with_backend(self._model, "cudagraph", self._images, sharing=self._graph)

    def _met(self) -> Run:
        """A pass of the model as it is, whose shapes a GPU has met."""
        if self._device.type != "cpu":
            for _ in range(_FIRST_PASSES):
                self._model(self._images)
        return partial(self._model, self._images)
