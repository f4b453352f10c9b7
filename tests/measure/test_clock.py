"""Clocks report the time of one call."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tokensearch.measure import (
    CudaEvents,
    Flushed,
    Run,
    TimingBudget,
    WallClock,
    clock_for,
    compare,
    warm_device,
)
from tokensearch.measure.clock import Warmth, cache_bytes

CPU = torch.device("cpu")


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


class Remembering:
    """A clock that writes down what it was given, and when."""

    warm = True

    def __init__(self, flushed: list[str]) -> None:
        self.flushed = flushed

    def time_ms(self, run: Run) -> float:
        self.flushed.append("timed")
        run()
        return 4.0


def test_caches_are_overwritten_before_each_pass_and_outside_of_it() -> None:
    happened: list[str] = []
    clock = Flushed(Remembering(happened), CPU)
    clock._buffer = SimpleNamespace(add_=lambda _: happened.append("flushed"))  # type: ignore[assignment]

    found_ms = [clock.time_ms(lambda: happened.append("ran")) for _ in range(2)]

    assert found_ms == [4.0, 4.0]
    assert happened == ["flushed", "timed", "ran"] * 2


def test_what_is_overwritten_is_larger_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokensearch.measure.clock.cache_bytes", lambda device: 4096)

    assert Flushed(Remembering([]), CPU)._buffer.nbytes == 2 * 4096


def test_a_cpu_has_the_size_of_its_largest_cache(tmp_path: Path) -> None:
    for place, size in enumerate(["32K", "1024K", "36608K"]):
        (tmp_path / f"index{place}").mkdir()
        (tmp_path / f"index{place}" / "size").write_text(f"{size}\n")

    assert cache_bytes(CPU, caches=tmp_path) == 36608 * 1024
    assert cache_bytes(CPU, caches=tmp_path / "none") == 256 * 2**20


@pytest.mark.parametrize(("size", "expected"), [(50 * 2**20, 50 * 2**20), (0, 256 * 2**20)])
def test_a_gpu_has_the_size_of_its_l2(
    size: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(L2_cache_size=size)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)

    assert cache_bytes(torch.device("cuda")) == expected


def test_a_clock_flushes_when_the_cell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokensearch.measure.clock.cache_bytes", lambda device: 4096)

    assert isinstance(clock_for(CPU, "flushed"), Flushed)
    assert isinstance(clock_for(CPU, "warm"), WallClock)


def test_a_device_is_warm_after_half_a_second_of_passes() -> None:
    now = 100.0
    one = Warmth(lambda: now)
    for _ in range(5):
        assert not one.warm
        one.worked(100.0)

    assert one.warm


def test_a_device_that_rested_must_be_warmed_again() -> None:
    now = 100.0
    one = Warmth(lambda: now)
    one.worked(600.0)
    assert one.warm

    now += 6.0
    assert not one.warm
    one.worked(100.0)
    assert not one.warm


class Heating:
    """A clock of passes of 200 ms, on a device that is cold at first."""

    def __init__(self) -> None:
        self.warmth = Warmth(lambda: 0.0)

    @property
    def warm(self) -> bool:
        return self.warmth.warm

    def time_ms(self, run: Run) -> float:
        run()
        self.warmth.worked(200.0)
        return 200.0


def test_passes_before_the_device_is_warm_are_not_counted() -> None:
    budget = TimingBudget(warmup=0, max_rounds=12, seconds=60)

    found = compare(lambda: None, lambda: None, clock=Heating(), budget=budget)

    assert found.baseline.warmup == 3
    assert len(found.baseline.passes_ms) == 12


def test_on_a_cpu_there_is_nothing_to_heat() -> None:
    assert warm_device(lambda: pytest.fail("a pass"), clock_for(torch.device("cpu"))) == 0
