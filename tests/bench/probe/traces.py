"""Which kernels a trace sees of a pass and of a replay, and whether operators link to them."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from tests.bench.probe.notes import Measure
from tests.bench.probe.timing import captured, span_us

LAYERS, WIDTH, ROWS = 8, 1024, 4096


def traces(device: torch.device) -> Iterator[tuple[str, Measure]]:
    rows = ROWS if device.type == "cuda" else 64
    layers = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(LAYERS)]
    model, x = nn.Sequential(*layers).to(device).eval(), torch.randn(rows, WIDTH, device=device)
    yield "a pass", lambda: seen(lambda: model(x), device)
    if device.type == "cuda":
        yield "a replay", lambda: seen(captured(lambda: model(x)).replay, device)


def seen(call: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """What torch's events and the raw trace say of one call, beside the clock."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    for _ in range(3):
        call()
    alone_us = span_us(call, device)
    with profile(activities=activities, acc_events=True) as taken:
        span = span_us(call, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        taken.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = [one for one in events if one.get("cat") == "kernel"]
    linked = [kernel for one in taken.events() for kernel in one.kernels]
    return {
        "alone_us": alone_us,
        "profiled_us": span,
        "kernels in the trace": len(kernels),
        "their time in the trace, us": sum(one["dur"] for one in kernels),
        "kernels linked to operators": len(linked),
        "their time by operators, us": sum(kernel.duration for kernel in linked),
        "fields of a kernel": sorted(kernels[0]["args"]) if kernels else [],
    }
