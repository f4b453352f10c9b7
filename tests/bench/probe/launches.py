"""The price of launching a kernel, and of stamping the time between two."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from tests.bench.probe.notes import Measure
from tests.bench.probe.timing import busy_us, captured, event, host_us, span_us, typical_us

CALLS = 400  # with as many events, fewer than a stream may have waiting (1,024)
AHEAD_CYCLES = 40_000_000  # some 20 ms: the host is through before the device begins


def launches(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """Kernels that do next to nothing: a launch is what they cost."""
    one = torch.zeros(1, device=device)
    calls = {"add to one number": lambda: one.add_(1)}
    if device.type == "cuda":
        calls["spin for no cycle"] = lambda: torch.cuda._sleep(0)
    for name, call in calls.items():
        yield f"{name}: host us", lambda c=call: host_us(c, device, calls=CALLS)
        yield f"{name}: us each, eager", lambda c=call: typical_us(c, device, calls=CALLS)
        yield f"{name}: us each, of a graph", lambda c=call: busy_us(c, device, calls=CALLS)
    if device.type == "cuda":
        empty = captured(lambda: one.add_(1))
        yield "replay of one kernel: host us", lambda: host_us(empty.replay, device, calls=CALLS)
        yield "replay of one kernel: us", lambda: typical_us(empty.replay, device)


def stamps(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """Events between tiny kernels, and those that a graph records itself."""
    if device.type != "cuda":
        return
    one, events = torch.zeros(1, device=device), [event() for _ in range(CALLS)]
    yield "record: host us", lambda: host_us(event().record, device, calls=CALLS)
    yield (
        "between eager kernels: us",
        lambda: (
            (
                typical_us(lambda: kernels(one, events), device)
                - typical_us(lambda: kernels(one, [None] * CALLS), device)
            )
            / CALLS
        ),
    )
    yield (
        "between queued kernels: us",
        lambda: (
            (
                queued_us(lambda: kernels(one, events), device)
                - queued_us(lambda: kernels(one, [None] * CALLS), device)
            )
            / CALLS
        ),
    )
    yield "in a graph", lambda: in_a_graph(one, device)


def kernels(one: torch.Tensor, events: list[Any]) -> None:
    """A kernel after a kernel, with an event behind each that has one."""
    for mark in events:
        one.add_(1)
        if mark is not None:
            mark.record()


def queued_us(call: Any, device: torch.device) -> float:
    """Device time of what the host hands out while the device still waits."""
    start, end = event(), event()
    torch.cuda.synchronize(device)
    torch.cuda._sleep(AHEAD_CYCLES)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3


def in_a_graph(one: torch.Tensor, device: torch.device) -> dict[str, Any]:
    """Whether external events are recorded by replays, agree with the clock, and what they cost."""
    marks = [torch.cuda.Event(enable_timing=True, external=True) for _ in range(CALLS)]
    stamped = captured(lambda: kernels(one, marks), warm=lambda: one.add_(1))
    bare = captured(lambda: kernels(one, [None] * CALLS))
    stamped.replay()
    outer_us = span_us(stamped.replay, device)
    inner_us = marks[0].elapsed_time(marks[-1]) * 1e3
    steps = [a.elapsed_time(b) * 1e3 for a, b in pairwise(marks)]
    price_us = (typical_us(stamped.replay, device) - typical_us(bare.replay, device)) / CALLS
    return {
        "first to last by its events, us": inner_us,
        "whole by events around it, us": outer_us,
        "sum of its steps, us": sum(steps),
        "least and most of a step, us": (min(steps), max(steps)),
        "price of one, us": price_us,
    }
