"""The passes of a sweep, on a model: whole, or split by block."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure import Stamps, clock_for
from tokensearch.policy import Policy
from tokensearch.profiles import Phase, Place
from tokensearch.profiling import twin

# Norms and projections stay within the half of the block that they belong to.
_WANTED = frozenset({"bias", "attention", "scoring", "selecting", "gathering", "merging", "mlp"})
# A GPU's allocator and libraries meet new shapes first; on a CPU a first pass of a schedule took as
# long as the second (ratio 1.002, DeiT-S, batch 8).
_FIRST_PASSES = 2


class Passes(Protocol):
    """Runs one pass at a time; tests put a machine here whose costs are known."""

    def whole_ms(self, policy: Policy) -> float:
        """Milliseconds of a plain pass, as a user runs it."""
        ...

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Place, float]:
        """Milliseconds of every part of a pass; with `floor`, steps only cut tokens off."""
        ...

    def elapsed_s(self) -> float:
        """Seconds since the first pass, all that was not timed included."""
        ...


class ModelPasses:
    """Passes of one model and one batch, on the device where both are.

    One copy of the model, which shares its weights, changes its policy from pass to pass: applied
    once, its blocks are proven and the rest takes milliseconds.
    """

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self._images, self._model = images, twin(model)
        self._stamps = Stamps(images.device)
        self._clock = clock_for(images.device)
        self._start_s = perf_counter()

    def whole_ms(self, policy: Policy) -> float:
        """Milliseconds of a plain pass; blocks without a step run the host's own code."""
        runtime.remove(self._model)
        if policy.reduces:
            runtime.apply(self._model, policy)
        self._meet()
        return self._clock.time_ms(partial(self._model, self._images))

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Place, float]:
        """Milliseconds between the borders of what is measured apart."""
        runtime.apply(self._model, policy)
        with runtime.ranged(self._model, self._around, floor=floor):
            self._meet()
            return self._stamps.split(partial(self._model, self._images))

    def elapsed_s(self) -> float:
        """Seconds on the wall."""
        return perf_counter() - self._start_s

    def _around(self, block: int, phase: Phase) -> AbstractContextManager[object]:
        return self._stamps.around(block, phase) if phase in _WANTED else nullcontext()

    def _meet(self) -> None:
        if self._images.device.type != "cpu":
            for _ in range(_FIRST_PASSES):
                self._model(self._images)
            torch.cuda.synchronize(self._images.device)
