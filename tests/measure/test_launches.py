from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from tokensearch.measure import clock_for, measure_launching
from tokensearch.records.launch_bound import State, launch_state


@dataclass
class Queue:
    """A host that enqueues kernels, and a device that runs them in turn: one clock for both."""

    host_ms: float  # to launch a kernel
    device_ms: float  # to run it
    kernels: int = 100
    first_ms: float = 0.0  # what the very first pass takes the host on top
    now_ms: float = 0.0
    free_ms: float = 0.0  # when the device will have run what it was given

    def run(self) -> None:
        self.now_ms += self.first_ms
        self.first_ms = 0.0
        for _ in range(self.kernels):
            self.now_ms += self.host_ms
            self.free_ms = max(self.free_ms, self.now_ms) + self.device_ms

    def now(self) -> float:
        return self.now_ms / 1000

    def time_ms(self, run: Callable[[], object]) -> float:
        """As CUDA's events do: from the call on an idle device to the end of the last kernel."""
        self.now_ms = self.free_ms = began_ms = max(self.now_ms, self.free_ms)
        run()
        return self.free_ms - began_ms


@pytest.mark.parametrize(
    ("device_ms", "pass_ms", "state"),
    [(0.01, 5.01, "bound"), (0.04, 5.04, "bound"), (0.06, 6.05, "busy"), (0.5, 50.05, "busy")],
)
def test_a_pass_is_launch_bound_where_kernels_are_shorter_than_launches(
    device_ms: float, pass_ms: float, state: State
) -> None:
    machine = Queue(host_ms=0.05, device_ms=device_ms)

    found = measure_launching(machine.run, machine, now=machine.now)

    assert found.host_ms == pytest.approx(5.0)
    assert found.pass_ms == pytest.approx(pass_ms)
    assert launch_state(pass_ms=found.pass_ms, host_ms=found.host_ms) == state


def test_a_slow_first_pass_does_not_count() -> None:
    machine = Queue(host_ms=0.05, device_ms=0.5, first_ms=2000.0)

    assert measure_launching(machine.run, machine, now=machine.now).host_ms == pytest.approx(5.0)


@pytest.mark.gpu
def test_many_small_kernels_wait_for_their_host_and_one_large_one_does_not() -> None:
    device = torch.device("cuda")
    small, large = torch.zeros(1, device=device), torch.ones(8192, 8192, device=device)

    def many() -> None:
        for _ in range(200):
            small.add_(1)

    assert measure_launching(many, clock_for(device)).bound
    assert not measure_launching(lambda: large @ large, clock_for(device)).bound
