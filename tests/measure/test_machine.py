"""A machine and a cell say what a latency belongs to."""

import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

import tokensearch
from tests.cells import GPU
from tests.measure.fakes import noisy
from tokensearch.measure import (
    Run,
    TimingBudget,
    describe_cell,
    describe_environment,
    machine,
    measure_noise,
    this_machine,
)
from tokensearch.measure.machine import governor, usable_memory
from tokensearch.measure.machine_monitor import usable_cores
from tokensearch.ops import use_kernels

CPU = torch.device("cpu")


def test_a_machine_names_its_hardware_and_software() -> None:
    found = this_machine(CPU)

    assert found.processor
    assert 1 <= found.cores <= (os.cpu_count() or 1)
    assert found.accelerator is None
    assert {"python", "torch"} <= dict(found.versions).keys()


def test_an_environment_says_when_where_and_by_what(tmp_path: Path) -> None:
    made = describe_environment(CPU)

    assert datetime.now(UTC) - datetime.fromisoformat(made.started) < timedelta(minutes=1)
    assert made.host == socket.gethostname()
    assert made.program == f"tokensearch {tokensearch.__version__}"
    assert made.memory_bytes is None or made.memory_bytes > 2**20
    assert made.gpu_memory_bytes is None


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path) -> None:
    (limit := tmp_path / "memory.max").write_text("1048576\n")
    (unlimited := tmp_path / "max").write_text("max\n")

    assert usable_memory(limit) == 2**20
    assert usable_memory(unlimited) == usable_memory(tmp_path / "missing")


def test_one_machine_has_one_fingerprint() -> None:
    assert this_machine(CPU) == this_machine(CPU)


def test_a_cell_names_device_type_batch_and_threads() -> None:
    cell = describe_cell(CPU, torch.bfloat16, 8, 224)

    assert (cell.device, cell.dtype, cell.batch, cell.resolution) == ("cpu", "bfloat16", 8, 224)
    assert cell.backend == "eager"
    assert cell.threads == torch.get_num_threads()


def test_a_cell_names_cache_and_attention() -> None:
    plain = describe_cell(CPU, torch.float32, 8, 224)
    special = describe_cell(CPU, torch.float32, 8, 224, cache="flushed", attention="flash")

    assert (plain.cache, plain.attention) == ("warm", None)
    assert (special.cache, special.attention) == ("flushed", "flash")


def test_a_cell_on_a_gpu_names_the_kernels_of_token_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(machine, "this_machine", lambda device: GPU)

    assert describe_cell(CPU, torch.float32, 8, 224).kernels is None
    assert describe_cell(gpu, torch.bfloat16, 8, 224).kernels == "triton"
    assert describe_cell(gpu, torch.float64, 8, 224).kernels == "torch"
    with use_kernels("torch"):
        assert describe_cell(gpu, torch.bfloat16, 8, 224).kernels == "torch"


# Torch 2.9 warns of the getter of old, later ones do not.
@pytest.mark.filterwarnings("ignore:Please use the new API settings:UserWarning")
def test_a_cell_of_float32_on_a_gpu_names_the_precision_of_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu, before = torch.device("cuda"), torch.get_float32_matmul_precision()
    monkeypatch.setattr(machine, "this_machine", lambda device: GPU)
    try:
        torch.set_float32_matmul_precision("high")
        assert describe_cell(gpu, torch.float32, 8, 224).matmul == "tf32"
        assert describe_cell(gpu, torch.bfloat16, 8, 224).matmul is None
        assert describe_cell(CPU, torch.float32, 8, 224).matmul is None
        torch.set_float32_matmul_precision("highest")
        assert describe_cell(gpu, torch.float32, 8, 224).matmul == "ieee"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_machine_names_the_governor_of_its_clocks_where_the_system_says_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / f"cpu{min(usable_cores())}" / "cpufreq" / "scaling_governor"
    file.parent.mkdir(parents=True)
    file.write_text("schedutil\n")

    assert governor(tmp_path) == "schedutil"
    assert governor(tmp_path / "none") is None


class RunningClock:
    """Really runs the work, and reports scripted times."""

    warm = True

    def __init__(self) -> None:
        self.times_ms = noisy(4.0, seed=0, spread=0.001)

    def time_ms(self, run: Run) -> float:
        assert isinstance(run(), torch.Tensor)
        return next(self.times_ms)


def test_noise_compares_a_workload_with_itself() -> None:
    budget = TimingBudget(warmup=0, max_rounds=12, seconds=1, precision=0.01)

    comparison = measure_noise(CPU, clock=RunningClock(), budget=budget)

    assert len(comparison.baseline.passes_ms) == 12
    assert comparison.verdict == "same"
