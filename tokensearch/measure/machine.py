"""Which machine this is, and how noisy: what a latency belongs to."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tokensearch.measure.clock import Clock, clock_for
from tokensearch.measure.paired import Budget, compare
from tokensearch.records import Backend, Cell, Comparison, Machine

PACKAGES = ("torch", "timm", "numpy")  # those whose version changes what runs

# The geometry of one DeiT-S feed-forward half (arXiv:2012.12877): what a search times, in small.
NOISE_IMAGES = 8
NOISE_TOKENS = 197
NOISE_WIDTH = 384
NOISE_BUDGET = Budget(warmup=5, min_pairs=30, max_pairs=200, seconds=5.0, precision=0.005)


def this_machine(device: torch.device) -> Machine:
    """Return the hardware and software under this process, as far as they decide its speed."""
    return Machine(
        processor=_processor(),
        cores=_usable_cores(),
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        versions=_versions(),
    )


def describe_cell(
    device: torch.device,
    dtype: torch.dtype,
    batch: int,
    resolution: int,
    *,
    backend: Backend = "eager",
) -> Cell:
    """Return what a latency belongs to: `batch` images of `resolution` pixels square, here."""
    return Cell(
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        batch=batch,
        resolution=resolution,
        backend=backend,
        threads=torch.get_num_threads(),
        machine=this_machine(device),
    )


def noise(
    device: torch.device,
    *,
    clock: Clock | None = None,
    budget: Budget = NOISE_BUDGET,
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

    return compare(run, run, clock=clock or clock_for(device), budget=budget, seed=seed)


def _processor() -> str:
    """CPU model name. On most Linux systems `platform.processor` does not know it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Cores this process may run on; only Linux can say, elsewhere all cores of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue  # timm is not needed to time a callable
    if torch.version.cuda is not None:
        found.append(("cuda", torch.version.cuda))
    return tuple(found)
