"""Clocks: how long one call takes, in milliseconds. Durations come from here and nowhere else."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch

from tokensearch.measure.allocator import keep_freed_memory
from tokensearch.records.measurements import Cache

Run = Callable[[], object]  # one pass; what it returns is thrown away


# Work that brings a GPU from its idle clock to its own, and how long it keeps it: of the latter
# nothing is known but that seconds do no harm.
WARM_MS = 500.0
STAYS_WARM_S = 5.0


class Clock(Protocol):
    """Times one call. `CudaEvents` and `WallClock` are real; tests script their own."""

    @property
    def warm(self) -> bool:
        """Whether the device has worked as long as its clocks take to rise."""
        ...

    def time_ms(self, run: Run) -> float:
        """Call `run` once; return the milliseconds from its start to the end of its work."""
        ...


class WallClock:
    """Elapsed time on the host, the device's queue emptied before and after: what a caller waits.

    Source: `time.perf_counter`, the standard library's monotonic clock of highest resolution.
    """

    warm = True  # of a CPU's clocks nothing is known that a pass or two would not tell

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type == "cuda" else None
        keep_freed_memory()

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
        self._device, self._warmth = device, warmth_of(device)

    @property
    def warm(self) -> bool:
        """Whether timed passes have lately kept the device at work for half a second."""
        return self._warmth.warm

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
        elapsed_ms = float(start.elapsed_time(end))
        self._warmth.worked(elapsed_ms)
        return elapsed_ms


class Warmth:
    """How long a device has been at work without a long break, by the passes that were timed."""

    def __init__(self, now: Callable[[], float] = perf_counter) -> None:
        self._now, self._ms, self._last_s = now, 0.0, 0.0

    def worked(self, ms: float) -> None:
        """Note that a pass of so many milliseconds has just ended."""
        self._ms = ms + (self._ms if self._lately else 0.0)
        self._last_s = self._now()

    @property
    def warm(self) -> bool:
        """Whether its clocks can be expected to have risen."""
        return self._lately and self._ms >= WARM_MS

    @property
    def _lately(self) -> bool:
        return self._now() - self._last_s < STAYS_WARM_S


@cache
def warmth_of(device: torch.device) -> Warmth:
    """Return what all clocks of a device know of it together."""
    return Warmth()


def warm_device(run: Run, clock: Clock) -> int:
    """Call `run` until the device is warm; return how often."""
    passes = 0
    while not clock.warm:
        clock.time_ms(run)
        passes += 1
    return passes


def _timing_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's gap


def clock_for(device: torch.device, cache: Cache = "warm") -> Clock:
    """Return the clock of the headline figures: events on a GPU, the wall clock elsewhere.

    "flushed": each pass finds the device's caches full of something else.
    """
    clock = CudaEvents(device) if device.type == "cuda" else WallClock(device)
    return clock if cache == "warm" else Flushed(clock, device)


# Where the size of a cache cannot be had: what triton.testing.do_bench zeroes.
UNKNOWN_CACHE_BYTES = 256 * 2**20
# No cache forgets strictly the oldest first: as many bytes as it holds evict only a part.
FLUSH_FACTOR = 2
CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class Flushed:
    """A clock whose passes start with cold caches, as a pass does that other work came before.

    Passes timed back to back find what the last one left: weights of 44 MB (DeiT-S in half
    precision) fit in the 50 MB of an H100's L2. Neither the overwriting nor its end is timed.
    """

    def __init__(self, clock: Clock, device: torch.device) -> None:
        self._clock = clock
        size = FLUSH_FACTOR * cache_bytes(device)
        self._buffer = torch.zeros(size // 4, dtype=torch.int32, device=device)

    @property
    def warm(self) -> bool:
        """As of the clock that is used."""
        return self._clock.warm

    def time_ms(self, run: Run) -> float:
        """Overwrite the caches, then time `run`."""
        self._buffer.add_(1)  # read and written: a plain write may go past a CPU's caches
        return self._clock.time_ms(run)


def cache_bytes(device: torch.device, *, caches: Path = CPU_CACHES) -> int:
    """Bytes of a GPU's L2, or of a CPU's largest cache by Linux; else `UNKNOWN_CACHE_BYTES`."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size) or UNKNOWN_CACHE_BYTES
    sizes = [file.read_text(encoding="ascii").strip() for file in caches.glob("index*/size")]
    whole = [int(size[:-1]) * 1024 for size in sizes if size[-1:] == "K" and size[:-1].isdigit()]
    return max(whole, default=UNKNOWN_CACHE_BYTES)
