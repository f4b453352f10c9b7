"""Operators and kernels of a trace, summed per step. Times are milliseconds from here on."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tokensearch.chrome.events import Event, read_events
from tokensearch.chrome.timeline import HostTimeline, StepMarks, nested
from tokensearch.errors import MeasurementError
from tokensearch.records.profile import OUTSIDE, Operator, Scope

MAX_FIGURES = 10**7  # steps times operators; a ViT has some thousand operators, a trace some steps
US_PER_MS = 1000.0

_Key = tuple[Scope, str, bool]  # where, its name, whether it is a kernel


class _Entry(NamedTuple):
    """Something that ran."""

    step: int | None
    key: _Key
    us: float
    calls: int = 1


@dataclass(frozen=True)
class ChromeTrace:
    """What a trace of torch.profiler tells that a profile tells too.

    An operator's time is its own: what is nested in it is left out, ranges included. Calls of the
    device's library, as `cudaLaunchKernel`, are operators. Kernels count in the step and the phase
    they were launched in.
    """

    name: str  # of the file
    operators: tuple[Operator, ...]  # block and phase by our own ranges, else (None, "other")
    passes_ms: tuple[float, ...]  # whole steps, by the host's clock
    stepped: bool  # the file marks steps; if not, all of it counts as one
    busy_ms: tuple[float, ...]  # per step, while any device worked; () if none did
    devices: tuple[str, ...]  # that ran kernels, by name, where the file tells
    metadata: dict[str, str | int | float] = field(hash=False)  # what else it says in one value


def read_trace(path: str | Path) -> ChromeTrace:
    """Read a trace, gzipped or not; MeasurementError names the file when it cannot be one."""
    path = Path(path)
    try:
        return trace_of(path.name, *read_events(path))
    except MeasurementError as error:
        error.add_note(f"in {path}")
        raise


def trace_of(name: str, events: list[Event], fields: Mapping[str, Any]) -> ChromeTrace:
    """Sum up the events of a file; MeasurementError where they are those of no trace."""
    kernels = [event for event in events if event.role == "kernel"]
    hosts = nested(event for event in events if event.role != "kernel")
    steps = StepMarks(hosts, kernels)
    ran = [host for host in hosts if host.event.role != "range"]
    launched = _launched(hosts, kernels, steps)
    return ChromeTrace(
        name,
        _operators([*(_host_entry(host, steps) for host in ran), *launched], len(steps.windows)),
        tuple((end - start) / US_PER_MS for start, end in steps.windows),
        steps.marked,
        _busy(kernels, launched, len(steps.windows)),
        _devices(fields, {kernel.track[0] for kernel in kernels}),
        _metadata(fields),
    )


def _operators(entries: Iterable[_Entry], steps: int) -> tuple[Operator, ...]:
    """Sum up what ran, by where and what it is; what is in no step is left out."""
    sums: dict[_Key, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    calls: Counter[_Key] = Counter()
    for entry in entries:
        if entry.step is not None:
            sums[entry.key][entry.step] += entry.us
            calls[entry.key] += entry.calls
    if not sums:
        raise MeasurementError("the trace holds no operators within its steps")
    if len(sums) * steps > MAX_FIGURES:
        raise MeasurementError(
            f"the trace holds {steps} steps of {len(sums)} operators; record fewer steps"
        )
    return tuple(_operator(key, calls[key], found, steps) for key, found in sums.items())


def _operator(key: _Key, calls: int, us: Mapping[int, float], steps: int) -> Operator:
    (block, phase), name, kernel = key
    passes_ms = tuple(us.get(step, 0.0) / US_PER_MS for step in range(steps))
    return Operator(block, phase, _clean(name), kernel, calls / steps, passes_ms)


def _host_entry(host: HostTimeline, steps: StepMarks) -> _Entry:
    key = (host.scope, host.event.name, False)
    return _Entry(steps.of(host.event.start_us), key, max(0.0, host.own_us), calls=1 - host.repeats)


def _launched(hosts: list[HostTimeline], kernels: list[Event], steps: StepMarks) -> list[_Entry]:
    """Return kernels in their order, where and when they were launched."""
    launches = _Launches(hosts)
    return [_kernel_entry(kernel, launches.of(kernel), steps) for kernel in kernels]


def _kernel_entry(kernel: Event, launch: HostTimeline | None, steps: StepMarks) -> _Entry:
    """Count a kernel in the step of its launch; if that is unknown, in the last step begun."""
    if launch is None:
        return _Entry(steps.begun(kernel.start_us), (OUTSIDE, kernel.name, True), kernel.us)
    step = steps.of(launch.event.start_us)
    return _Entry(step, (launch.scope, kernel.name, True), kernel.us)


class _Launches:
    """Which event on the host launched a kernel."""

    def __init__(self, hosts: list[HostTimeline]) -> None:
        calls = [host for host in hosts if host.event.role == "call"]
        self._calls = {host.event.correlation: host for host in calls}
        callers = [host for host in hosts if host.event.role != "call"]
        self._callers = {host.event.external: host for host in callers}

    def of(self, kernel: Event) -> HostTimeline | None:
        """Find the call of the same correlation; if it lies alone, the operator that it names.

        In older releases calls lie on tracks of their own, apart from the operators.
        """
        call = self._calls.get(kernel.correlation) if kernel.correlation else None
        if call is not None and call.parent is not None:
            return call
        for named in (call.event.external if call else None, kernel.external):
            if named is not None and named in self._callers:
                return self._callers[named]
        return call


def _busy(kernels: list[Event], launched: list[_Entry], steps: int) -> tuple[float, ...]:
    ran: list[list[Event]] = [[] for _ in range(steps)]
    for kernel, entry in zip(kernels, launched, strict=True):
        if entry.step is not None:
            ran[entry.step].append(kernel)
    return tuple(map(_union_ms, ran)) if kernels else ()


def _union_ms(kernels: list[Event]) -> float:
    """How long any of them ran: what runs side by side counts once."""
    busy_us = until_us = 0.0
    for kernel in sorted(kernels, key=lambda one: one.start_us):
        busy_us += max(0.0, kernel.end_us - max(until_us, kernel.start_us))
        until_us = max(until_us, kernel.end_us)
    return busy_us / US_PER_MS


def _devices(fields: Mapping[str, Any], used: set[str | int]) -> tuple[str, ...]:
    listed = fields.get("deviceProperties", fields.get("computeProperties"))
    known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return tuple(
        _clean(one["name"])
        for one in known
        if isinstance(one.get("name"), str) and isinstance(one.get("id"), int) and one["id"] in used
    )


def _metadata(fields: Mapping[str, Any]) -> dict[str, str | int | float]:
    """Return what a trace says of itself in single values: versions, settings, the host's name."""
    plain = {key: value for key, value in fields.items() if isinstance(value, str | int | float)}
    return {
        _clean(key): _clean(value) if isinstance(value, str) else value
        for key, value in plain.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def _clean(text: str) -> str:
    """Replace halves of characters, which JSON can hold and nobody can print."""
    return text.encode(errors="replace").decode()
