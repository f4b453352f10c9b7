"""What happens beside a timing is read from the system's own counters."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.measure.fakes import FakeClock, baseline, candidate, steady
from tokensearch.measure import MachineMonitor, TimingBudget, compare, machine_monitor, nvml
from tokensearch.measure.machine_monitor import busy_seconds, others_share, tick_ms, usable_cores
from tokensearch.records.measurements import (
    Caution,
    Conditions,
    Trial,
    from_json,
    to_json,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TICKS = os.sysconf("SC_CLK_TCK")

# user nice system idle iowait irq softirq steal guest guest_nice, in ticks
STAT = """cpu  800 80 160 5000 99 8 16 40 0 0
cpu0 400 40 80 2500 50 4 8 20 0 0
cpu1 300 40 80 2500 49 4 8 20 0 0
cpu10 100 0 0 0 0 0 0 0 0 0
intr 12345 0 0
"""


@pytest.mark.parametrize(
    ("cores", "ticks"), [({0}, 552), ({1}, 452), ({0, 1}, 1004), ({10}, 100), ({0, 7}, 552)]
)
def test_cores_are_busy_when_they_neither_idle_nor_wait_for_a_disk(
    cores: set[int], ticks: int
) -> None:
    assert busy_seconds(STAT, cores) == ticks / TICKS


@pytest.mark.parametrize("stat", ["", "cpu0 0 0 0 0 0 0 0 0 0 0\n", "intr 1 2 3\n"])
def test_a_system_that_counts_nothing_is_not_believed(stat: str) -> None:
    assert busy_seconds(stat, {0}) is None


def test_what_was_busy_without_us_went_to_others() -> None:
    assert others_share(busy_s=3.0, own_s=2.0, capacity_s=4.0) == 0.25
    assert others_share(busy_s=2.0, own_s=2.01, capacity_s=4.0) == 0.0


def test_a_counter_that_misses_our_own_work_says_nothing_of_others() -> None:
    assert others_share(busy_s=0.1, own_s=2.0, capacity_s=4.0) is None


def test_a_short_window_says_nothing_of_others() -> None:
    seen = MachineMonitor(CPU)
    seen.start()

    assert seen.stop().others is None


def test_a_window_is_shared_among_us_and_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds of two cores: five core-seconds busy, one of them with us."""
    walls, owns = iter([0.0, 100.0, 110.0]), iter([0.0, 50.0, 51.0])
    clocks = SimpleNamespace(perf_counter=lambda: next(walls), process_time=lambda: next(owns))
    monkeypatch.setattr(machine_monitor, "time", clocks)
    monkeypatch.setattr(machine_monitor, "usable_cores", lambda: {0, 1})
    monkeypatch.setattr(machine_monitor, "tick_ms", lambda device: 1e-4)
    stat = tmp_path / "stat"
    stat.write_text(STAT)
    seen = MachineMonitor(CPU, stat=stat)
    seen.start()
    stat.write_text(STAT.replace("cpu1 300", f"cpu1 {300 + 5 * TICKS}"))

    assert seen.stop() == Conditions(tick_ms=1e-4, others=0.2)


def test_a_system_without_counters_is_no_error(tmp_path: Path) -> None:
    seen = MachineMonitor(CPU, stat=tmp_path / "stat")

    assert seen.stop().others is None


def test_this_process_may_run_somewhere() -> None:
    assert usable_cores()


def test_the_wall_clock_has_a_small_step_and_events_a_known_one() -> None:
    assert 0 < tick_ms(CPU) < 1
    assert tick_ms(GPU) == 0.0005


class FakeNvml:
    """An NVML with one GPU; `moments` are its clock, throttling bits, temperature and processes."""

    NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *moments: tuple[int, int, int, tuple[int, ...]], broken: str = "") -> None:
        self.moments, self.broken = list(moments), broken
        self.opened = self.openings = 0

    def nvmlInit(self) -> None:
        self._fail("init")
        self.opened += 1
        self.openings += 1

    def nvmlShutdown(self) -> None:
        self.opened -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._fail("handle")
        assert uuid == "GPU-1234"
        return uuid

    def nvmlSystemGetDriverVersion(self) -> str:
        self._fail("driver")
        return "570.1"

    def nvmlDeviceGetMaxClockInfo(self, handle: str, kind: int) -> int:
        return 2000

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: str) -> int:
        return 700_000

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        self._fail("clock")
        return self.moments[0][0]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.moments[0][1]

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:
        return self.moments[0][2]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        seen = self.moments.pop(0)[3]
        self._fail("processes")
        return [SimpleNamespace(pid=pid) for pid in seen]

    def _fail(self, call: str) -> None:
        if call == self.broken:
            raise self.NVMLError


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_has_its_limits_from_nvml() -> None:
    library = FakeNvml()

    assert nvml.limits(GPU, nvml=library) == nvml.Limits("570.1", 2000, 700.0)
    assert library.opened == 0


OURS = os.getpid()
HOSTS = 4_000_001  # above what Linux numbers processes with


def state(library: FakeNvml) -> nvml.State | None:
    return nvml.Gpu(GPU, nvml=library).state()


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_has_its_state_from_nvml() -> None:
    library = FakeNvml((1400, 0x4 | 0x20 | 0x40, 81, (OURS, 7, 8)))

    assert state(library) == nvml.State(0.7, ("power", "temperature"), 81, 2)


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("broken", ["init", "handle"])
def test_without_a_driver_or_a_whole_gpu_nothing_is_known(broken: str) -> None:
    library = FakeNvml(broken=broken)
    gpu = nvml.Gpu(GPU, nvml=library)

    assert gpu.limits() is None
    assert gpu.state() is None
    gpu.close()
    assert library.opened == 0


@pytest.mark.usefixtures("one_gpu")
def test_what_nvml_refuses_is_unknown_and_no_more_than_that() -> None:
    assert nvml.limits(GPU, nvml=FakeNvml(broken="driver")) is None
    clockless = FakeNvml((2000, 0x8, 40, (OURS,)), broken="clock")
    assert state(clockless) == nvml.State(None, ("hardware slowdown",), 40, 0)
    lonely = FakeNvml((2000, 0, 40, (OURS,)), broken="processes")
    assert state(lonely) == nvml.State(1.0, (), 40, None)


def test_without_nvml_or_a_gpu_nothing_is_known() -> None:
    assert nvml.limits(GPU, nvml=None) is None
    assert nvml.Gpu(CPU, nvml=FakeNvml()).state() is None


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ((OURS,), 0),
        ((OURS, HOSTS), 1),
        ((HOSTS,), 0),  # it is us, by the number that the host knows us by
        ((HOSTS, HOSTS + 1), 1),  # one of them is
        ((HOSTS, HOSTS), 0),
        ((), None),  # we are on the GPU, and not even we are shown
    ],
)
def test_processes_of_another_namespace_hold_us_among_them(
    pids: tuple[int, ...], others: int | None
) -> None:
    seen = state(FakeNvml((2000, 0, 40, pids)))

    assert seen is not None
    assert seen.processes == others


@pytest.fixture
def watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[FakeNvml], MachineMonitor]:
    """A watch over a GPU that a library knows, on a system that counts nothing else."""
    real = nvml.Gpu

    def one(library: FakeNvml) -> MachineMonitor:
        monkeypatch.setattr(machine_monitor.nvml, "Gpu", lambda device: real(device, nvml=library))
        return MachineMonitor(GPU, stat=tmp_path / "stat")

    return one


@pytest.mark.usefixtures("one_gpu")
def test_the_worst_that_was_seen_of_a_gpu_is_kept(
    watched: Callable[[FakeNvml], MachineMonitor],
) -> None:
    library = FakeNvml((2000, 0, 60, (OURS,)), (1300, 0x4, 70, (OURS, 1)), (1900, 0x8, 65, (OURS,)))
    seen = watched(library)

    seen.start()
    seen.look()
    seen.look()
    found = seen.stop()

    assert found == Conditions(0.0005, None, 0.65, ("hardware slowdown", "power"), 70, 1)
    assert (library.openings, library.opened) == (1, 0)


@pytest.mark.usefixtures("one_gpu")
def test_a_gpu_that_idles_at_first_raises_no_doubt(
    watched: Callable[[FakeNvml], MachineMonitor],
) -> None:
    """345 MHz before the first pass and between two; 1980 under load. Its pids are the host's."""
    idle, loaded = (345, nvml.IDLE, 30, (HOSTS,)), (1980, 0, 60, (HOSTS,))
    library = FakeNvml(idle, loaded)
    clock = FakeClock(baseline=steady(), candidate=steady())
    budget = TimingBudget(warmup=0, first_look=30, max_rounds=30, seconds=60)

    found = compare(baseline, candidate, clock=clock, budget=budget, watch=watched(library))

    assert not library.moments
    assert found.conditions is not None
    assert (found.conditions.gpu_clock, found.conditions.gpu_processes) == (0.99, 0)
    assert found.cautions == ()


class Crowded(MachineMonitor):
    """Sees others on the machine, wherever the test runs."""

    def stop(self) -> Conditions:
        return Conditions(tick_ms=1e-4, others=0.4)


def test_a_watched_comparison_holds_what_was_seen_and_its_doubts() -> None:
    clock = FakeClock(baseline=steady(), candidate=steady())
    budget = TimingBudget(warmup=0, first_look=30, max_rounds=30, seconds=60)

    found = compare(baseline, candidate, clock=clock, budget=budget, watch=Crowded(CPU))

    assert found.conditions == Conditions(tick_ms=1e-4, others=0.4)
    assert found.cautions == (Caution.BUSY,)
    assert found.verdict == "same"


def test_conditions_come_back_from_their_file() -> None:
    clock = FakeClock(baseline=steady(), candidate=steady())
    budget = TimingBudget(warmup=0, first_look=30, max_rounds=30, seconds=60)
    found = compare(baseline, candidate, clock=clock, budget=budget, watch=Crowded(CPU))
    written = {"comparison": to_json(found), "accuracy": ACCURACY}

    assert from_json(Trial, {**TRIAL, **written}).comparison == found


TRIAL = {
    "number": 0,
    "origin": "seed",
    "schedule_hash": "",
    "state": "complete",
    "predicted": 1.0,
    "seconds": 1.0,
    "policy": {},
}
ACCURACY = {
    "kind": "top1",
    "split": "search",
    "split_hash": "",
    "images": 1,
    "right": 1,
    "low": 0.0,
    "high": 1.0,
    "level": 0.95,
    "kl": 0.0,
    "ce": 0.0,
    "agreed": 1,
}
