"""What else happened on the machine while something was timed."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import torch

from tokensearch.measure import nvml
from tokensearch.records.measurements import Conditions

STAT = Path("/proc/stat")
# Counted in hundredths of a second, which over less than this are more than 2 % of a core.
SHORTEST_S = 0.5
# Of elapsed times between events: around half a microsecond, by cudaEventElapsedTime's manual.
EVENT_TICK_MS = 0.0005
Number = TypeVar("Number", int, float)
TICKS = 1000  # of the wall clock looked at; the smallest is its step. Takes a millisecond


class MachineMonitor:
    """Looks at the machine from `start` to `stop`, and at its GPU whenever told to `look`.

    Nobody looks at the start: before its first passes a GPU idles at a low clock, of which no
    timing deserves a caution.
    """

    def __init__(self, device: torch.device, *, stat: Path = STAT) -> None:
        self._device, self._stat = device, stat
        self._gpu: nvml.Gpu | None = None
        self._states: list[nvml.State] = []
        self._began = _Moment.now(stat)

    def start(self) -> None:
        """Forget what was seen: the timed window begins here."""
        self._states.clear()
        if self._gpu is None:
            self._gpu = nvml.Gpu(self._device)
        self._began = _Moment.now(self._stat)

    def look(self) -> None:
        """Read the GPU's clocks and temperature; call right after a pass; takes a while."""
        seen = None if self._gpu is None else self._gpu.state()
        if seen is not None:
            self._states.append(seen)

    def stop(self) -> Conditions:
        """Return what was seen since `start`."""
        self.look()
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None
        seen = self._states
        return Conditions(
            tick_ms=tick_ms(self._device),
            others=_Moment.now(self._stat).others_since(self._began),
            gpu_clock=min(_known(one.clock for one in seen), default=None),
            gpu_throttled=tuple(sorted({why for one in seen for why in one.throttled})),
            gpu_temperature_c=max(_known(one.temperature_c for one in seen), default=None),
            gpu_processes=max(_known(one.processes for one in seen), default=None),
        )


def _known(values: Iterable[Number | None]) -> list[Number]:
    return [value for value in values if value is not None]


class _Moment:
    """Readings of three counters, in seconds: the wall's, this process's, the cores' busy time."""

    def __init__(self, wall_s: float, own_s: float, busy_s: float | None, cores: int) -> None:
        self.wall_s, self.own_s, self.busy_s, self.cores = wall_s, own_s, busy_s, cores

    @classmethod
    def now(cls, stat: Path) -> "_Moment":
        cores = usable_cores()
        text = stat.read_text(encoding="ascii") if stat.exists() else ""
        return cls(time.perf_counter(), time.process_time(), busy_seconds(text, cores), len(cores))

    def others_since(self, before: "_Moment") -> float | None:
        """Share of the usable cores' time that went to others; None where nobody can say."""
        wall_s = self.wall_s - before.wall_s
        if self.busy_s is None or before.busy_s is None or wall_s < SHORTEST_S:
            return None
        return others_share(
            busy_s=self.busy_s - before.busy_s,
            own_s=self.own_s - before.own_s,
            capacity_s=wall_s * self.cores,
        )


def busy_seconds(stat: str, cores: set[int]) -> float | None:
    """Seconds that `cores` have not idled since the machine started, by the text of /proc/stat.

    Time that a hypervisor gave to other machines counts as busy. None where the cores are missing
    or nothing is counted, as in some containers. Source: proc(5).
    """
    ticks = 0
    for line in stat.splitlines():
        name, *counts = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _idle, _iowait, irq, softirq, *steal = map(int, counts)
            ticks += user + nice + system + irq + softirq + sum(steal[:1])
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def others_share(*, busy_s: float, own_s: float, capacity_s: float) -> float | None:
    """Share of the cores' time that was busy, but not with us; None if we were not counted."""
    if busy_s < own_s / 2:  # a counter that misses our own work misses that of others
        return None
    return max(0.0, busy_s - own_s) / capacity_s


def usable_cores() -> set[int]:
    """Cores this process may run on; only Linux can say, elsewhere all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def tick_ms(device: torch.device) -> float:
    """Smallest step of the headline figures' clock, in milliseconds; the wall's is measured."""
    if device.type == "cuda":
        return EVENT_TICK_MS
    return min(_next_tick_s() for _ in range(TICKS)) * 1000


def _next_tick_s() -> float:
    start = now = time.perf_counter()
    while now == start:
        now = time.perf_counter()
    return now - start
