"""Clocks report the time of one call."""

import math

import pytest
import torch

from tokensearch.measure import CudaEvents, WallClock, clock_for


def test_the_wall_clock_reports_a_positive_time_and_calls_once() -> None:
    calls: list[int] = []

    elapsed_ms = WallClock().time_ms(lambda: calls.append(1))

    assert elapsed_ms > 0
    assert math.isfinite(elapsed_ms)
    assert calls == [1]


def test_a_cpu_is_timed_by_the_wall_and_a_gpu_by_events() -> None:
    assert isinstance(clock_for(torch.device("cpu")), WallClock)
    assert isinstance(clock_for(torch.device("cuda")), CudaEvents)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_events_and_the_wall_agree_on_a_long_kernel() -> None:
    device = torch.device("cuda")
    x = torch.randn(4096, 4096, device=device)
    clocks = (CudaEvents(device), WallClock(device))
    for clock in clocks:
        clock.time_ms(lambda: x @ x)

    events_ms, wall_ms = (clock.time_ms(lambda: x @ x) for clock in clocks)

    assert events_ms == pytest.approx(wall_ms, rel=0.5)
