"""What NVIDIA's management library says of a GPU; None where it is not installed or refuses.

Needs `nvidia-ml-py` (extra `gpu`). GPUs are found by UUID, since CUDA_VISIBLE_DEVICES renumbers
those that torch sees.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

try:
    import pynvml
except ImportError:  # optional: without it the fields of a GPU stay None
    pynvml = None

Answer = TypeVar("Answer")

# Bits of nvmlClocksEventReasons that lower clocks below what was asked for. An idle GPU, clocks
# set by an application and those of a display are no throttling. Source: NVML's nvml.h.
IDLE = 0x01
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
    """What changes while a GPU works; None where it does not say."""

    clock: float | None  # of the multiprocessors, as a share of the highest; None while it idles
    throttled: tuple[str, ...]
    temperature_c: int | None
    processes: int | None  # besides this one


class Gpu:
    """A GPU as NVML sees it, from its making until it is closed; without NVML it says nothing."""

    def __init__(self, device: torch.device, *, nvml: Any = pynvml) -> None:
        self._nvml, self._opened, self._handle = nvml, False, None
        if nvml is None or device.type != "cuda":
            return
        try:
            nvml.nvmlInit()
            self._opened = True
            uuid = torch.cuda.get_device_properties(device).uuid
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except nvml.NVMLError:
            return  # no driver; or a slice of a GPU, which has a UUID of another kind

    def close(self) -> None:
        """Let go of NVML, which counts its openings and closings; then nothing is answered."""
        self._handle = None
        if self._opened:
            self._nvml.nvmlShutdown()
            self._opened = False

    def limits(self) -> Limits | None:
        """Return a GPU's limits; virtual GPUs keep some of them to themselves."""
        if self._handle is None:
            return None
        nvml = self._nvml
        driver = self._asked(lambda _: str(nvml.nvmlSystemGetDriverVersion()))
        highest, limit_mw = self._highest(), self._asked(nvml.nvmlDeviceGetEnforcedPowerLimit)
        if driver is None or highest is None or limit_mw is None:
            return None
        return Limits(driver, highest, limit_mw / 1000)

    def state(self) -> State | None:
        """Return a GPU's state at this moment; what it refuses to say is None."""
        if self._handle is None:
            return None
        nvml = self._nvml
        bits = self._asked(nvml.nvmlDeviceGetCurrentClocksThrottleReasons) or 0
        return State(
            clock=None if bits & IDLE else self._clock(),
            throttled=_reasons(bits),
            temperature_c=self._asked(
                lambda gpu: int(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU))
            ),
            processes=_others(self._asked(nvml.nvmlDeviceGetComputeRunningProcesses)),
        )

    def _clock(self) -> float | None:
        nvml, highest = self._nvml, self._highest()
        now = self._asked(lambda gpu: int(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)))
        return now / highest if now is not None and highest else None

    def _highest(self) -> int | None:
        nvml = self._nvml
        return self._asked(lambda gpu: int(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)))

    def _asked(self, question: Callable[[Any], Answer]) -> Answer | None:
        if self._handle is None:
            return None
        try:
            return question(self._handle)
        except self._nvml.NVMLError:
            return None  # containers and virtual GPUs do not answer everything


def limits(device: torch.device, *, nvml: Any = pynvml) -> Limits | None:
    """Return a GPU's limits; None without NVML or on another device."""
    gpu = Gpu(device, nvml=nvml)
    try:
        return gpu.limits()
    finally:
        gpu.close()


def _reasons(bits: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for bit, name in THROTTLING.items() if bits & bit))


def _others(processes: list[Any] | None) -> int | None:
    """How many processes on a GPU are others'; None where nobody can say.

    In a container the list may hold the host's numbers, among which ours is not to be found: then
    one of them is ours, since we are on the GPU. An empty list hides even us.
    """
    if not processes:
        return None
    pids = {process.pid for process in processes}
    return len(pids - {os.getpid()}) if os.getpid() in pids else len(pids) - 1
