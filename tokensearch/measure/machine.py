"""Which machine this is, and how noisy: what a latency belongs to."""

import os
import platform
import socket
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import tokensearch
from tokensearch.measure import nvml
from tokensearch.measure.allocator import keep_freed_memory
from tokensearch.measure.cautions import add_self_comparison_caution
from tokensearch.measure.clock import Clock, clock_for
from tokensearch.measure.interleaved import TimingBudget
from tokensearch.measure.machine_monitor import MachineMonitor, usable_cores
from tokensearch.measure.paired import compare
from tokensearch.ops import kernels_of
from tokensearch.records.measurements import EXPORTED, Backend, Cache, Cell, Comparison, Machine
from tokensearch.records.run_result import RunEnvironment

PACKAGES = ("torch", "timm", "numpy")  # those whose version changes what runs

CPUS = Path("/sys/devices/system/cpu")
CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")  # of version 2: a number, or "max"

# The geometry of one DeiT-S feed-forward half (arXiv:2012.12877): what a search times, in small.
NOISE_IMAGES = 8
NOISE_TOKENS = 197
NOISE_WIDTH = 384
NOISE_BUDGET = TimingBudget(warmup=5, first_look=30, max_rounds=200, seconds=5.0, precision=0.005)


def this_machine(device: torch.device) -> Machine:
    """Return the hardware and software under this process, as far as they decide its speed."""
    gpu = nvml.limits(device)
    return Machine(
        processor=_processor(),
        cores=len(usable_cores()),
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        versions=_versions(device),
        governor=governor(),
        driver=gpu.driver if gpu else None,
        max_clock_mhz=gpu.max_clock_mhz if gpu else None,
        power_limit_w=gpu.power_limit_w if gpu else None,
    )


def describe_environment(device: torch.device) -> RunEnvironment:
    """Return when, by what program and on which computer this process measures."""
    return RunEnvironment(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        program=f"tokensearch {tokensearch.__version__}",
        host=socket.gethostname() or "unknown",
        memory_bytes=usable_memory(),
        gpu_memory_bytes=torch.cuda.get_device_properties(device).total_memory
        if device.type == "cuda"
        else None,
    )


def usable_memory(container: Path = CONTAINER_MEMORY) -> int | None:
    """Return the memory of this computer or container, bytes; None where the system is silent."""
    known = []
    with suppress(AttributeError, ValueError, OSError):  # there is no `sysconf` on Windows
        known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(ValueError, OSError):
        known.append(int(container.read_text(encoding="ascii")))
    return min(known, default=None)


def device_name(device: torch.device) -> str:
    """Name a device as a cell does: `cpu`, `cuda`, or `cuda:1` where there are several GPUs."""
    if device.type != "cuda" or torch.cuda.device_count() <= 1:
        return device.type
    return str(device) if ":" in str(device) else f"cuda:{torch.cuda.current_device()}"


def describe_cell(
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    resolution: int,
    *,
    backend: Backend = "eager",
    cache: Cache = "warm",
    attention: str | None = None,
    columns: int | None = None,
) -> Cell:
    """Return what a latency belongs to: `batch` images of `resolution` pixels a side, here.

    `columns` says how many columns of pixels they have, where `resolution` is that of rows alone.

    `attention` is what `attention_of` says of the baseline, where somebody asked it.
    """
    return Cell(
        device=device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        batch=batch,
        resolution=resolution,
        backend=backend,
        threads=torch.get_num_threads(),
        machine=_with_library(this_machine(device), backend),
        memory="kept" if keep_freed_memory() else "system",
        cache=cache,
        attention=attention,
        matmul=_matmul(device, dtype),
        kernels=kernels_of(device, dtype) if device.type == "cuda" else None,
        columns=None if columns == resolution else columns,
    )


def _matmul(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return how products of float32 are computed on a GPU; in full where nothing is set."""
    if device.type != "cuda" or dtype != torch.float32:
        return None
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


def measure_noise(
    device: torch.device,
    *,
    clock: Clock | None = None,
    budget: TimingBudget = NOISE_BUDGET,
    seed: int = 0,
) -> Comparison:
    """Compare a fixed piece of work with itself: any difference found is this machine's noise.

    The interval is the finest difference that timing of this length could prove here.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = (
        (NOISE_IMAGES * NOISE_TOKENS, NOISE_WIDTH),
        (NOISE_WIDTH, 4 * NOISE_WIDTH),
        (4 * NOISE_WIDTH, NOISE_WIDTH),
    )
    x, up, down = (torch.randn(shape, generator=generator).to(device) for shape in shapes)

    def run() -> torch.Tensor:
        return torch.nn.functional.gelu(x @ up) @ down

    watch = MachineMonitor(device)
    return add_self_comparison_caution(
        compare(run, run, clock=clock or clock_for(device), budget=budget, seed=seed, watch=watch)
    )


def governor(cpus: Path = CPUS) -> str | None:
    """Who decides the clocks of the first usable core ("performance", "schedutil"); Linux only."""
    file = cpus / f"cpu{min(usable_cores())}" / "cpufreq" / "scaling_governor"
    return file.read_text(encoding="ascii").strip() if file.exists() else None


def _processor() -> str:
    """CPU model name. On most Linux systems `platform.processor` does not know it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _with_library(machine: Machine, backend: Backend) -> Machine:
    """Add the version of the library that runs the model, where that is not torch."""
    if backend not in EXPORTED:
        return machine
    # By the module: distributions of other builds have other names, as onnxruntime-gpu.
    library = str(import_module(backend).__version__)
    return replace(machine, versions=(*machine.versions, (backend, library)))


def _versions(device: torch.device) -> tuple[tuple[str, str], ...]:
    versions = [("python", platform.python_version())]
    for package in PACKAGES:
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            continue  # timm is not needed to time a callable
    if torch.version.cuda is not None:
        versions.append(("cuda", torch.version.cuda))
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch's gap
        versions.append(("cudnn", str(cudnn)))
    return tuple(versions)
