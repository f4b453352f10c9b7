"""What the PyTorch profiler saw: every operator and kernel, within the range it ran in.

Tracing costs microseconds per operator (pytorch issue 82793: 17.8 ms become 30.5 ms) and can slow
down what runs after it (pytorch issue 146604), so clocks run first. Stacks are off: they make
`record_function` spans get lost (pytorch issue 174555).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, record_function, schedule
from torch.profiler import profile as torch_profile

from tokensearch.errors import MeasurementError
from tokensearch.measure.clock import Run
from tokensearch.measure.tensorboard import write_trace
from tokensearch.records.profile import OUTSIDE, PASS_RANGE, Operator, Scope, scope_of

# CUDA's lazy start inside the window corrupts device times (pytorch issue 132218), and the profiler
# asks for warm-up of its own. One pass each loads kernels, fills caches, and starts the tracer.
WAIT_PASSES = 1
WARMUP_PASSES = 1
US_PER_MS = 1000.0

_Key = tuple[Scope, str, bool]  # where, its name, whether it is a kernel
_Sums = dict[_Key, tuple[int, float]]  # calls and milliseconds


@dataclass(frozen=True, slots=True)
class Trace:
    """Traced passes, split among operators and kernels."""

    operators: tuple[Operator, ...]
    passes_ms: tuple[float, ...]  # whole traced passes, by the host's clock


def trace_passes(
    run: Run, *, name: str, device: torch.device, passes: int, folder: Path | None = None
) -> Trace:
    """Run `passes` passes of `run` under the profiler.

    With `folder`, the trace is also written as `<name>/<name>.<ns since 1970>.pt.trace.json.gz`:
    TensorBoard's plugin torch-tb-profiler opens the folder, Perfetto the file.
    """
    if passes < 1:
        raise MeasurementError(f"a trace needs at least 1 pass, got {passes}")
    events = _events(run, name=name, device=device, passes=passes, folder=folder)
    wholes = [event for event in events if _is_host(event) and event.name == PASS_RANGE]
    if len(wholes) != passes:
        raise MeasurementError(f"the profiler kept {len(wholes)} of {passes} passes of {name}")
    kernels = [event for event in events if _is_kernel(event)]
    starts = [whole.time_range.start for whole in wholes]
    walked = [
        # Passes are awaited: a kernel is of the pass before whose successor it began.
        _summed(whole, [one for one in kernels if start <= one.time_range.start < end])
        for whole, start, end in zip(wholes, starts, [*starts[1:], inf], strict=True)
    ]
    keys = dict.fromkeys(key for one in walked for key in one)
    return Trace(
        tuple(_operator(key, walked) for key in keys), tuple(_wall_ms(whole) for whole in wholes)
    )


def _operator(key: _Key, walked: list[_Sums]) -> Operator:
    (block, phase), name, kernel = key
    sums = [one.get(key, (0, 0.0)) for one in walked]
    calls = sum(count for count, _ in sums) / len(sums)
    return Operator(block, phase, name, kernel, calls, tuple(ms for _, ms in sums))


def _events(
    run: Run, *, name: str, device: torch.device, passes: int, folder: Path | None
) -> list[FunctionEvent]:
    """Run under the profiler; return the events of the traced passes, linked to their parents."""
    kept: list[FunctionEvent] = []

    def keep(profiler: torch_profile) -> None:
        kept.extend(profiler.events() or ())  # type: ignore[no-untyped-call]  # torch's gap
        if folder is not None:
            write_trace(profiler, folder / to_file_name(name), to_file_name(name))

    on_gpu = device.type == "cuda"
    with torch_profile(
        activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu,
        schedule=schedule(wait=WAIT_PASSES, warmup=WARMUP_PASSES, active=passes, repeat=1),
        on_trace_ready=keep,
        acc_events=True,  # there is one cycle; without it some versions warn that events get lost
    ) as profiler:
        for _ in range(WAIT_PASSES + WARMUP_PASSES + passes):
            with record_function(PASS_RANGE):
                run()
            if on_gpu:
                torch.cuda.synchronize(device)  # kernels must end before their window closes
            profiler.step()
    return kept


def to_file_name(name: str) -> str:
    """Return a name as part of a file name: TensorBoard's plugin reads it back as the worker."""
    return re.sub(r"[^\w.-]+", "_", name)


def _summed(whole: FunctionEvent, kernels: Iterable[FunctionEvent]) -> _Sums:
    """Calls and milliseconds of everything in one pass, by where it ran."""
    sums: _Sums = defaultdict(lambda: (0, 0.0))
    for key, ms in (*_walk(whole, OUTSIDE), *_unlinked(whole, kernels)):
        calls, so_far_ms = sums[key]
        sums[key] = calls + 1, so_far_ms + ms
    return dict(sums)


def _unlinked(
    whole: FunctionEvent, kernels: Iterable[FunctionEvent]
) -> Iterator[tuple[_Key, float]]:
    """Kernels of a pass that hang on none of its operators, with their times.

    The profiler links a kernel to the operator that launched it, and a replayed graph has none.
    """
    linked = Counter((one.name, one.duration) for event in _below(whole) for one in event.kernels)
    seen = Counter((one.name, one.time_range.end - one.time_range.start) for one in kernels)
    for name, us in (seen - linked).elements():
        yield (OUTSIDE, name, True), us / US_PER_MS


def _below(event: FunctionEvent) -> Iterator[FunctionEvent]:
    yield event
    for child in event.cpu_children:
        yield from _below(child)


def _walk(event: FunctionEvent, scope: Scope) -> Iterator[tuple[_Key, float]]:
    """Every operator below an event with its own time, and every kernel with its whole time.

    A range also has a shadow on the device: an event of the range's own name, as long as its
    kernels and the gaps between them. It may be linked like a kernel, and must not count as one.
    """
    own = scope_of(event.name)
    here = own or scope
    if own is None and event.name != PASS_RANGE:
        children_ms = sum(_wall_ms(child) for child in event.cpu_children)
        yield (here, event.name, False), max(0.0, _wall_ms(event) - children_ms)
    for kernel in event.kernels:
        if kernel.name != event.name:
            yield (here, kernel.name, True), float(kernel.duration) / US_PER_MS
    for child in event.cpu_children:
        yield from _walk(child, here)


def _is_host(event: FunctionEvent) -> bool:
    return event.device_type.name == "CPU"


def _is_kernel(event: FunctionEvent) -> bool:
    """Whether something ran on the device, and is not merely a range's shadow there."""
    return not (_is_host(event) or event.is_user_annotation or scope_of(event.name))


def _wall_ms(event: FunctionEvent) -> float:
    return float(event.time_range.end - event.time_range.start) / US_PER_MS


def peak_bytes(run: Run, device: torch.device) -> int:
    """Return the highest use of memory in one pass of `run`, above what was in use before it.

    On a GPU by torch's own allocator; on a CPU from the profiler's record of every allocation.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with torch_profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        run()
    in_use = peak = 0
    for event in _allocations(profiler):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    return int(peak)


def _allocations(profiler: torch_profile) -> list[Any]:
    """Allocations and frees, in the order of time."""
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    return sorted(events, key=lambda event: event.start_ns())
