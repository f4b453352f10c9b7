"""A GPU whose costs are known, in the place of torch's: it executes what the host enqueues.

The host spends time on every launch and on every event; the device does one thing after the other,
none before it was enqueued. A graph is enqueued as one, and then every node costs the device alone.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tokensearch import runtime
from tokensearch.measure import TimingBudget, clock, timer_cost


@dataclass
class FakeGpu:
    """Costs in milliseconds. Every operator that is no view is a launch of one kernel."""

    launch_ms: float = 0.005  # of the host, for every kernel
    kernel_ms: Callable[[Any], float] = lambda out: 0.002  # of the device, by what it makes
    border_ms: tuple[float, float] = (0.002, 0.004)  # of the host, for an event: from, to
    node_ms: float = 0.001  # of the device, for an event in a graph
    host: float = 0.0
    device: float = 0.0
    log: list[Callable[[], None]] | None = None  # of a capture
    random: Random = field(default_factory=lambda: Random(0))

    def launch(self, ms: float) -> None:
        if self.log is not None:
            self.log.append(lambda: self._execute(ms))
            return
        self.host += self.launch_ms
        self._execute(ms)

    def record(self, event: "FakeEvent") -> None:
        if self.log is not None:
            if event.external:  # others only order streams
                self.log.append(lambda: self._node(event))
            return
        self.host += self.random.uniform(*self.border_ms)
        self.device = event.ms = max(self.device, self.host)

    def sleep(self, cycles: int) -> None:
        self.launch(cycles / 2e6)

    def synchronize(self, *_: object) -> None:
        self.host = self.device = max(self.host, self.device)

    def replay(self, log: list[Callable[[], None]]) -> None:
        self.host += self.launch_ms
        for node in log:
            node()

    def _execute(self, ms: float) -> None:
        self.device = max(self.device, self.host) + ms

    def _node(self, event: "FakeEvent") -> None:
        self._execute(self.node_ms)
        event.ms = self.device


class FakeEvent:
    gpu: FakeGpu

    def __init__(self, *, enable_timing: bool = False, external: bool = False) -> None:
        self.external, self.ms = external and enable_timing, None

    def record(self, stream: object = None) -> None:
        self.gpu.record(self)

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def elapsed_time(self, end: "FakeEvent") -> float:
        return end.ms - self.ms


class _Launches(TorchDispatchMode):
    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self._gpu.launch(self._gpu.kernel_ms(out))
        return out


def installed(gpu: FakeGpu, patch: pytest.MonkeyPatch) -> AbstractContextManager[object]:
    """Put `gpu` in the place of torch's; inside the `with`, operators on the CPU are launches."""

    def backed(
        model: nn.Module, backend: str, example: Tensor, *, sharing: object = None
    ) -> Callable[[Tensor], Tensor]:
        if backend != "cudagraph":
            return model
        for _ in range(3):
            model(example)
        gpu.log = log = []
        out = model(example)
        gpu.log = None

        def replay(images: Tensor) -> Tensor:
            gpu.replay(log)
            return out

        return replay

    events = type("Event", (FakeEvent,), {"gpu": gpu})
    patch.setattr(torch.cuda, "Event", events)
    patch.setattr(torch.cuda, "synchronize", gpu.synchronize)
    patch.setattr(torch.cuda, "_sleep", gpu.sleep)
    patch.setattr(torch.cuda, "current_stream", lambda device=None: None)
    patch.setattr(torch.cuda, "device", lambda device: nullcontext())
    patch.setattr(runtime, "with_backend", backed)
    patch.setattr(clock, "WARM_MS", 0.0)  # warm after a pass
    patch.setattr(
        timer_cost, "ROUNDS", TimingBudget(warmup=1, min_rounds=8, max_rounds=8, seconds=9.0)
    )
    return _Launches(gpu)
