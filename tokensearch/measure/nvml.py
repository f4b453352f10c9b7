"""What NVIDIA's management library says of a GPU; None where it is not installed or refuses.

Needs `nvidia-ml-py` (extra `gpu`). GPUs are found by UUID, since CUDA_VISIBLE_DEVICES renumbers
those that torch sees.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

try:
    import pynvml
except ImportError:  # optional: without it the fields of a GPU stay None
    pynvml = None

# Bits of nvmlClocksEventReasons that lower clocks below what was asked for. An idle GPU, clocks
# set by an application and those of a display are no throttling. Source: NVML's nvml.h.
THROTTLING = {
    0x04: "power",
    0x08: "hardware slowdown",
    0x20: "temperature",
    0x40: "temperature",
    0x80: "power brake",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What decides a GPU's speed and seldom changes."""

    driver: str
    max_clock_mhz: int  # of the multiprocessors
    power_limit_w: float  # as enforced


@dataclass(frozen=True, slots=True)
class State:
    """What changes while a GPU works."""

    clock: float  # of the multiprocessors, as a share of the highest
    throttled: tuple[str, ...]
    temperature_c: int
    processes: int  # besides this one


def limits(device: torch.device, *, nvml: Any = pynvml) -> Limits | None:
    """Return a GPU's limits; None without NVML or on another device."""
    with _opened(device, nvml) as handle:
        if handle is None:
            return None
        try:
            return Limits(
                driver=str(nvml.nvmlSystemGetDriverVersion()),
                max_clock_mhz=int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
                power_limit_w=nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000,  # mW
            )
        except nvml.NVMLError:
            return None  # virtual GPUs keep some of it to themselves


def state(device: torch.device, *, nvml: Any = pynvml) -> State | None:
    """Return a GPU's state at this moment; None without NVML or on another device."""
    with _opened(device, nvml) as handle:
        if handle is None:
            return None
        try:
            highest = nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)
            return State(
                clock=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM) / highest,
                throttled=_reasons(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)),
                temperature_c=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
                processes=_others(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
            )
        except nvml.NVMLError:
            return None


@contextmanager
def _opened(device: torch.device, nvml: Any) -> Iterator[Any]:
    """Give NVML's handle of a GPU, or None; NVML counts its openings and closings."""
    if nvml is None or device.type != "cuda":
        yield None
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        yield None
        return
    try:
        yield _handle(device, nvml)
    finally:
        nvml.nvmlShutdown()


def _handle(device: torch.device, nvml: Any) -> Any:
    try:
        uuid = torch.cuda.get_device_properties(device).uuid
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except nvml.NVMLError:
        return None  # a slice of a GPU has a UUID of another kind


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for bit, name in THROTTLING.items() if bits & bit))


def _others(processes: list[Any]) -> int:
    return sum(process.pid != os.getpid() for process in processes)
