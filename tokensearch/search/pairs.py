"""What is timed in turn: the un-reduced model and a candidate, both run by the cell's backend."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tokensearch.measure import Run
from tokensearch.records import COMPILED, Backend
from tokensearch.runtime import backed
from tokensearch.runtime.backends import Forward

# A compiled candidate of twelve blocks leaves about 15 MB behind in torch 2.15 until all that was
# compiled is forgotten; then the un-reduced model must be compiled anew.
FORGET_AFTER = 16


@dataclass
class Pairs:
    """Makes pairs of passes. The un-reduced model is prepared once, each candidate for itself."""

    model: nn.Module  # un-reduced
    backend: Backend
    _baseline: Forward | None = None
    _candidates: int = 0

    def pair(
        self, candidate: nn.Module, images: Tensor, theirs: Tensor | None = None
    ) -> tuple[Run, Run]:
        """Return a pass of the un-reduced model and one of `candidate`, both warmed up.

        `candidate` must not be given another policy while they are in use.

        images  of every pass of the un-reduced model; the same in every call
        theirs  of the candidate, where it takes others
        """
        own, baseline = images if theirs is None else theirs, self.baseline(images)
        self._candidates += 1
        # No two are replayed at one time, and answers are copied out: all graphs share one memory.
        run = backed(candidate, self.backend, own, sharing=self._baseline)
        if self.backend == "eager" and own.device.type != "cpu":
            run(
                own
            )  # libraries plan for new token counts: tens of milliseconds for each of cuDNN's
        return baseline, partial(run, own)

    def baseline(self, images: Tensor) -> Run:
        """Return a pass of the un-reduced model, warmed up."""
        if self._baseline is None or self._worn:
            self._forget()
            self._baseline = backed(self.model, self.backend, images)
        return partial(self._baseline, images)

    @property
    def _worn(self) -> bool:
        return self.backend in COMPILED and self._candidates >= FORGET_AFTER

    def _forget(self) -> None:
        if self._candidates:
            torch.compiler.reset()
        self._candidates = 0
