"""How the probe takes times: plain loops, events and graphs of torch."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch

Call = Callable[[], object]
SPANS = 5  # their median is told
WARMUP = 3


def event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def span_us(call: Call, device: torch.device) -> float:
    """Microseconds of one call and of all it gave the device to do."""
    if device.type != "cuda":
        start_s = perf_counter()
        call()
        return (perf_counter() - start_s) * 1e6
    start, end = event(), event()
    torch.cuda.synchronize(device)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def typical_us(call: Call, device: torch.device, *, calls: int = 1) -> float:
    """Median span over warm calls, of which one span holds `calls`; per call."""

    def together() -> None:
        for _ in range(calls):
            call()

    for _ in range(WARMUP):
        call()
    return median(span_us(together, device) for _ in range(SPANS)) / calls


def busy_us(call: Call, device: torch.device, *, calls: int = 20) -> float:
    """Microseconds of device time per call: on a GPU from replays, which no launch holds up."""
    if device.type != "cuda":
        return typical_us(call, device)

    def together() -> None:
        for _ in range(calls):
            call()

    return typical_us(captured(together, warm=call).replay, device) / calls


def captured(call: Call, *, warm: Call | None = None) -> torch.cuda.CUDAGraph:
    """A graph of one call; `warm` is called first, on a stream of its own."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARMUP):
            (warm or call)()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def host_us(call: Call, device: torch.device, *, calls: int) -> float:
    """Microseconds that the host takes to hand out one call, whatever the device then does."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start_s = perf_counter()
    for _ in range(calls):
        call()
    taken_s = perf_counter() - start_s
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return taken_s / calls * 1e6
