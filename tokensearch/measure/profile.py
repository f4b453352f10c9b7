"""Where the time of a pass goes, by the PyTorch profiler.

Each pass is wrapped in a range of its own, and split without remainder into three kinds of time:

* inside a range named by `records.range_name`: that block's phase;
* before the first such range of the pass, or after the last: what the model does outside its blocks
  (stem, head), recorded as phase "other" of block None;
* anything else, that is between two ranges: `Profile.unexplained_ms`. A pass without any range is
  unexplained as a whole.

On a CPU these are wall times of the traced ranges. On a GPU they are device times of the kernels
and copies *launched* within the range, however much later those ran; gaps in which the device
waited belong to nobody, so `clock_ms - profiled_ms` is about what the device idled. Ranges do not
nest.

All figures are means over the traced passes: parts must add up to the whole, which medians do not.

Tracing costs microseconds per operator (pytorch issue 82793: 17.8 ms become 30.5 ms) and can slow
down what runs after it (pytorch issue 146604), so the clock runs first, and its figure is the
headline. Stacks are off: they make `record_function` spans get lost (pytorch issue 174555).
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import get_args

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function, schedule, tensorboard_trace_handler
from torch.profiler import profile as torch_profile

from tokensearch.errors import MeasurementError
from tokensearch.measure.clock import Clock, Run
from tokensearch.records import PHASES, RANGE, Cell, Phase, PhaseTime, Profile

# CUDA's lazy start inside the window corrupts device times (pytorch issue 132218), and the profiler
# asks for warm-up of its own. One pass each loads kernels, fills caches, and starts the tracer.
WAIT_PASSES = 1
TRACER_WARMUP_PASSES = 1
CLOCK_WARMUP_PASSES = 3
CLOCK_PASSES = 5  # fewest whose median two outliers cannot move

US_PER_MS = 1000.0

_PASS = f"{RANGE}.pass"
_RANGE_PATTERN = re.compile(rf"{re.escape(RANGE)}\.block\.(\d+)\.({'|'.join(PHASES)})")
_PHASE_OF: Mapping[str, Phase] = {phase: phase for phase in get_args(Phase)}

_Place = tuple[int | None, Phase]


@dataclass(frozen=True, slots=True)
class _Ruler:
    """How time is read off an event: on the host, or on the device."""

    within: Callable[[FunctionEvent], float]  # ms
    outside: Callable[[FunctionEvent, float, float], float]  # ms before and after two instants, us


@dataclass(frozen=True, slots=True)
class _Pass:
    """One traced pass: the whole, and the parts that ranges explain."""

    whole_ms: float
    parts_ms: Mapping[_Place, float]


def profile(
    run: Run,
    *,
    name: str,
    cell: Cell,
    clock: Clock,
    passes: int = 5,
    trace_dir: Path | None = None,
) -> Profile:
    """Trace `passes` passes of `run` in `cell`, after timing some with `clock` un-profiled.

    With `trace_dir`, the trace is also written there as `<name>.<ns since 1970>.pt.trace.json.gz`:
    TensorBoard's plugin torch-tb-profiler opens the folder, Perfetto the file.
    """
    if passes < 1:
        raise MeasurementError(f"a profile needs at least 1 pass, got {passes}")
    clock_ms = _clock_ms(run, clock, passes=max(passes, CLOCK_PASSES))
    events = _trace(run, name=name, cell=cell, passes=passes, trace_dir=trace_dir)
    ruler = _DEVICE if cell.device == "cuda" else _HOST
    traced = [_explain(event, ruler) for event in events if _is_host_range(event, _PASS)]
    if len(traced) != passes:
        raise MeasurementError(f"the profiler kept {len(traced)} of {passes} passes of {name}")
    return Profile(
        name=name,
        cell=cell,
        passes=passes,
        phases=_mean_phases(traced),
        profiled_ms=fmean(one.whole_ms for one in traced),
        clock_ms=clock_ms,
    )


def _clock_ms(run: Run, clock: Clock, *, passes: int) -> float:
    """Median un-profiled pass, after warm-up."""
    timed_ms = [clock.time_ms(run) for _ in range(CLOCK_WARMUP_PASSES + passes)]
    return median(timed_ms[CLOCK_WARMUP_PASSES:])


def _trace(
    run: Run, *, name: str, cell: Cell, passes: int, trace_dir: Path | None
) -> list[FunctionEvent]:
    """Run under the profiler; return the events of the traced passes, ranges linked to parents."""
    kept: list[FunctionEvent] = []

    def keep(profiler: torch_profile) -> None:
        kept.extend(profiler.events() or ())  # type: ignore[no-untyped-call]  # torch's gap
        if trace_dir is not None:
            write = tensorboard_trace_handler(str(trace_dir), _worker(name), use_gzip=True)
            write(profiler)

    on_gpu = cell.device == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    plan = schedule(wait=WAIT_PASSES, warmup=TRACER_WARMUP_PASSES, active=passes, repeat=1)
    with torch_profile(
        activities=activities,
        schedule=plan,
        on_trace_ready=keep,
        acc_events=True,  # there is one cycle; without it some versions warn that events get lost
    ) as profiler:
        for _ in range(WAIT_PASSES + TRACER_WARMUP_PASSES + passes):
            with record_function(_PASS):
                run()
            if on_gpu:
                torch.cuda.synchronize()  # kernels must end before their window closes
            profiler.step()
    return kept


def _worker(name: str) -> str:
    """Return a name as part of a file name: TensorBoard's plugin reads it back as the worker."""
    return re.sub(r"[^\w.-]+", "_", name)


def _explain(whole: FunctionEvent, ruler: _Ruler) -> _Pass:
    """Split one traced pass into what its ranges explain."""
    ranges = [
        (place, event)
        for event in _below(whole)
        if (place := _place(event)) is not None and _is_host_range(event, event.name)
    ]
    parts_ms: dict[_Place, float] = defaultdict(float)
    for place, event in ranges:
        parts_ms[place] += ruler.within(event)
    if ranges:
        first_us = min(event.time_range.start for _, event in ranges)
        last_us = max(event.time_range.end for _, event in ranges)
        parts_ms[None, "other"] = ruler.outside(whole, first_us, last_us)
    return _Pass(ruler.within(whole), parts_ms)


def _wall_ms(event: FunctionEvent) -> float:
    """Time the host spent in an event."""
    return float(event.time_range.end - event.time_range.start) / US_PER_MS


def _wall_outside_ms(event: FunctionEvent, first_us: float, last_us: float) -> float:
    """Time the host spent in an event before one instant and after another."""
    return _wall_ms(event) - (last_us - first_us) / US_PER_MS


def _device_ms(event: FunctionEvent) -> float:
    """Time of the kernels and copies launched within an event.

    A range also has a shadow on the device: an event of the range's own name, as long as its
    kernels and the gaps between them. It may be linked like a kernel, and must not count as one.
    """
    own_us = sum(kernel.duration for kernel in event.kernels if kernel.name != event.name)
    return float(own_us) / US_PER_MS + sum(_device_ms(child) for child in event.cpu_children)


def _device_outside_ms(event: FunctionEvent, first_us: float, last_us: float) -> float:
    """Time of what an event launched before one instant and after another."""
    outside_ms = 0.0
    for child in event.cpu_children:
        if child.time_range.end <= first_us or child.time_range.start >= last_us:
            outside_ms += _device_ms(child)
        elif child.time_range.start < first_us or child.time_range.end > last_us:
            outside_ms += _device_outside_ms(child, first_us, last_us)
    return outside_ms


_HOST = _Ruler(_wall_ms, _wall_outside_ms)
_DEVICE = _Ruler(_device_ms, _device_outside_ms)


def _below(event: FunctionEvent) -> Iterable[FunctionEvent]:
    """All events within an event, on the same thread."""
    for child in event.cpu_children:
        yield child
        yield from _below(child)


def _place(event: FunctionEvent) -> _Place | None:
    """Which block and phase a range was put around; None if it is no range of the runtime."""
    match = _RANGE_PATTERN.fullmatch(event.name)
    return (int(match[1]), _PHASE_OF[match[2]]) if match else None


def _is_host_range(event: FunctionEvent, name: str) -> bool:
    return event.name == name and event.device_type.name == "CPU"


def _mean_phases(traced: list[_Pass]) -> tuple[PhaseTime, ...]:
    """Mean time of every part, in the order of the blocks and of `PHASES`, outside last."""
    places = {place for one in traced for place in one.parts_ms}
    inside = [(block, phase) for block, phase in places if block is not None]
    inside.sort(key=lambda place: (place[0], PHASES.index(place[1])))
    ordered: list[_Place] = [*inside, *(place for place in places if place[0] is None)]
    return tuple(
        PhaseTime(*place, fmean(one.parts_ms.get(place, 0.0) for one in traced))
        for place in ordered
    )
