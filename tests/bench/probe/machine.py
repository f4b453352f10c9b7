"""Versions, settings and limits; and what NVML says of a GPU that idles and one that works."""

import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import torch

from tests.bench.probe.notes import Measure

PACKAGES = ("torch", "triton", "timm", "numpy", "optuna", "nvidia-ml-py", "pytest", "hypothesis")
LOAD_ROWS, LOADS, LOOKS, LOOK_S = 8192, 400, 20, 0.05


def machine(device: torch.device) -> Iterator[tuple[str, Measure]]:
    yield "host", host
    yield "packages", lambda: {name: installed(name) for name in PACKAGES}
    yield "settings", settings
    if device.type == "cuda":
        yield "gpu", lambda: gpu(device)
        yield "nvidia-smi", nvidia_smi


def host() -> dict[str, Any]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": names[0] if names else platform.processor(),
        "cores": cores,
        "load": os.getloadavg(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def settings() -> dict[str, Any]:
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "sdp_priority": torch._C._get_sdp_priority_order(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(("CUDA_", "TORCH_", "PYTORCH_", "NVIDIA_", "OMP_"))
        },
    }


def gpu(device: torch.device) -> dict[str, Any]:
    found = torch.cuda.get_device_properties(device)
    fields = [name for name in dir(found) if not name.startswith("_")]
    free, total = torch.cuda.mem_get_info(device)
    return {name: getattr(found, name) for name in fields} | {"free": free, "total": total}


def nvidia_smi() -> list[str]:
    done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.splitlines()


def nvml(device: torch.device) -> Iterator[tuple[str, Measure]]:
    if device.type != "cuda":
        return
    import pynvml

    pynvml.nvmlInit()
    yield "driver", pynvml.nvmlSystemGetDriverVersion
    uuid = torch.cuda.get_device_properties(device).uuid
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    yield "processes", lambda: processes(pynvml, handle)
    yield "idle", lambda: look(pynvml, handle)
    yield "under load", lambda: under_load(pynvml, handle, device)
    yield "price of init and shutdown, ms", lambda: init_ms(pynvml)
    yield "price of a look, ms", lambda: look_ms(pynvml, handle)


def look(pynvml: Any, handle: Any) -> dict[str, Any]:
    return {
        "sm_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "sm_most_mhz": pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "memory_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
        "throttle_reasons": hex(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
        "power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "temperature_c": pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
    }


def processes(pynvml: Any, handle: Any) -> dict[str, Any]:
    """Which processes NVML sees, and what this one is called inside and outside its namespace."""
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "seen": [
            (one.pid, one.usedGpuMemory)
            for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        ],
        "own": os.getpid(),
        "namespaces": [line for line in status if line.startswith("NSpid")],
    }


def under_load(pynvml: Any, handle: Any, device: torch.device) -> list[dict[str, Any]]:
    """Looks at a GPU that multiplies: how soon its clocks are up, and what holds them down."""
    left, right = torch.randn(2, LOAD_ROWS, LOAD_ROWS, device=device, dtype=torch.bfloat16)
    start_s, looks = perf_counter(), []
    for _ in range(LOADS):
        left @ right
    for _ in range(LOOKS):
        idle = torch.cuda.current_stream(device).query()
        seen = {"after_s": perf_counter() - start_s, "idle": idle, **look(pynvml, handle)}
        looks.append(seen)
        if idle:
            break
        sleep(LOOK_S)
    torch.cuda.synchronize(device)
    return looks


def init_ms(pynvml: Any) -> float:
    start_s = perf_counter()
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    return (perf_counter() - start_s) * 1e3


def look_ms(pynvml: Any, handle: Any) -> float:
    start_s = perf_counter()
    look(pynvml, handle)
    return (perf_counter() - start_s) * 1e3
