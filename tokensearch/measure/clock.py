"""Clocks: how long one call takes, in milliseconds. Durations come from here and nowhere else."""

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import torch

Run = Callable[[], object]  # one pass; what it returns is thrown away


class Clock(Protocol):
    """Times one call. `CudaEvents` and `WallClock` are real; tests script their own."""

    def time_ms(self, run: Run) -> float:
        """Call `run` once; return the milliseconds from its start to the end of its work."""
        ...


class WallClock:
    """Elapsed time on the host, the device's queue emptied before and after: what a caller waits.

    Source: `time.perf_counter`, the standard library's monotonic clock of highest resolution.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None

    def time_ms(self, run: Run) -> float:
        """Milliseconds from the call of `run` until the device has done what it was given."""
        self._settle()
        start_s = perf_counter()
        run()
        self._settle()
        return (perf_counter() - start_s) * 1000

    def _settle(self) -> None:
        if self._device is not None:
            torch.cuda.synchronize(self._device)


class CudaEvents:
    """Elapsed time on the device, between two events on its current stream.

    The first event is passed on an idle stream, so the span holds the launch of the first kernel
    and every gap in which the device waits for the host, as a lone pass has them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def time_ms(self, run: Run) -> float:
        """Milliseconds between the event before `run` and the event after its last kernel."""
        start = _timing_event()
        end = _timing_event()
        torch.cuda.synchronize(self._device)  # work left over from before is not part of the pass
        with torch.cuda.device(self._device):
            start.record()
            run()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


def _timing_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's gap


def clock_for(device: torch.device) -> Clock:
    """Return the clock of the headline figures: events on a GPU, the wall clock elsewhere."""
    return CudaEvents(device) if device.type == "cuda" else WallClock(device)
