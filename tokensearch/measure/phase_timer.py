"""Stamps: a pass that notes the time at every border of a range, and is thereby split into parts.

The time between two borders belongs to the innermost range that is open; before the first range it
is the stem's, after the last the head's, between two of them "other". So the parts add up to the
pass, without remainder.

A stamp costs a tenth of a microsecond on a CPU, where a range of the PyTorch profiler costs five
and every operator in it one or two more. On a GPU a stamp is an event on the stream, so that a part
is the time from one border to the next on the device, launch gaps included. Inside a CUDA graph it
is a node of the graph, which every replay records anew: an *external* event (pytorch pull request
155372).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure.allocator import keep_freed_memory
from tokensearch.measure.clock import Run
from tokensearch.records.profile import OUTSIDE, Phase, Scope

# Of any GPU's multiprocessors: slower clocks make a delay longer, which does no harm.
MOST_CYCLES_PER_MS = 3_000_000
STEM: Scope = (None, "stem")
HEAD: Scope = (None, "head")


class PhaseTimer:
    """Splits passes on one device: one at a time, on one thread, and of one graph if of any."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        keep_freed_memory()
        self._marks: dict[Scope, _Mark] = {}
        self._events: list[torch.cuda.Event] = []
        self._used = 0
        self._kept = 0  # borders within a graph, whose instants its replays renew
        # (range entered or None for one left, instant), in the order of time
        self.borders: list[tuple[Scope | None, Any]] = []
        self.now: Callable[[], Any] = self._event if device.type == "cuda" else perf_counter

    def around(self, block: int, phase: Phase) -> AbstractContextManager[object]:
        """Return a range around one phase of one block: what `runtime.phase_ranges` asks for."""
        scope: Scope = (block, phase)
        if scope not in self._marks:
            self._marks[scope] = _Mark(self, scope)
        return self._marks[scope]

    def split(self, run: Run, *, ahead_ms: float = 0.0) -> dict[Scope, float]:
        """Call `run` once; return the milliseconds of every part of it. They add up to the pass.

        ahead_ms  for how long a GPU is kept busy first: the host then runs ahead of it, and no part
                  waits for a launch
        """
        self._settle()
        self._rewind()
        if ahead_ms:
            with torch.cuda.device(self._device):
                torch.cuda._sleep(round(ahead_ms * MOST_CYCLES_PER_MS))  # type: ignore[no-untyped-call]  # torch's gap
        start = self.now()
        run()
        end = self.now()
        self._settle()
        return _parts(start, self.borders, end, self._elapsed_ms)

    def captured(
        self, model: nn.Module, images: Tensor, *, sharing: runtime.Forward | None = None
    ) -> Run:
        """Capture a pass of `model`, whose ranges are of these stamps, and return its replay.

        `sharing` is as of `runtime.backed`. ModelError where it cannot be captured.
        """
        self._kept = 0
        begins = model.register_forward_pre_hook(lambda *_: self._rewind())  # warm-up passes too
        try:
            replay = runtime.with_backend(model, "cudagraph", images, sharing=sharing)
        finally:
            begins.remove()
        self._kept = len(self.borders)
        return partial(replay, images)

    def shares(self) -> dict[Scope, float]:
        """Borders whose price is in each part of the latest pass; they add up to all borders.

        Between two borders are the end of one's and the beginning of the other's price. The first
        and the last part begin and end as a pass does that is not split.
        """
        instants = len(self.borders) + 2  # numbered, with those of the pass itself
        numbered = [(scope, number) for number, (scope, _) in enumerate(self.borders, start=1)]

        def share(start: int, end: int) -> float:
            return ((start > 0) + (end < instants - 1)) / 2

        return _parts(0, numbered, instants - 1, share)

    def _rewind(self) -> None:
        """Forget the pass before, but for what replays renew."""
        del self.borders[self._kept :]
        self._used = self._kept

    def _elapsed_ms(self, start: Any, end: Any) -> float:
        if self._device.type == "cuda":
            return float(start.elapsed_time(end))
        return float(end - start) * 1000

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _event(self) -> torch.cuda.Event:
        """An event on the stream, taken from those of the pass before: making one costs time."""
        if self._used == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True, external=True))  # type: ignore[no-untyped-call]  # torch's gap
        event = self._events[self._used]
        self._used += 1
        event.record(torch.cuda.current_stream(self._device))
        return event


class _Mark:
    """A range that stamps its borders. The same object serves every pass."""

    __slots__ = ("_place", "_stamps")

    def __init__(self, stamps: PhaseTimer, scope: Scope) -> None:
        self._stamps, self._place = stamps, scope

    def __enter__(self) -> None:
        self._stamps.borders.append((self._place, self._stamps.now()))

    def __exit__(self, *_: object) -> None:
        self._stamps.borders.append((None, self._stamps.now()))


def _parts(
    start: Any,
    borders: list[tuple[Scope | None, Any]],
    end: Any,
    elapsed_ms: Callable[[Any, Any], float],
) -> dict[Scope, float]:
    """Give every stretch between two borders to the innermost range open in it."""
    parts: dict[Scope, float] = defaultdict(float)
    inside: list[Scope] = []
    last, outside = start, STEM if borders else OUTSIDE
    for scope, instant in borders:
        parts[inside[-1] if inside else outside] += elapsed_ms(last, instant)
        if scope is None:
            inside.pop()
        else:
            inside.append(scope)
        last, outside = instant, OUTSIDE
    parts[HEAD if borders else OUTSIDE] += elapsed_ms(last, end)
    return dict(parts)


def columns(passes: list[Mapping[Scope, float]]) -> dict[Scope, tuple[float, ...]]:
    """Turn passes with parts into parts with passes; a part that a pass lacks took 0 ms in it."""
    scopes = dict.fromkeys(scope for one in passes for scope in one)
    return {scope: tuple(one.get(scope, 0.0) for one in passes) for scope in scopes}
