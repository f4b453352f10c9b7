"""The device that processes share: many may predict on it, and whoever times has it alone.

Locks are the system's own, on files: a process that dies lets go of them.
"""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokensearch.data.splits import Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.files import no_follow
from tokensearch.policy import Policy
from tokensearch.records.measurements import Comparison
from tokensearch.records.profile import Profile


class DeviceLock:
    """Held together by those who predict, and alone by one who times."""

    def __init__(self, path: Path) -> None:
        """Use the files `path` and `path`.turn, which are made if they are not there."""
        self._file = _open_for_all(path)
        self._turn = _open_for_all(path.with_name(f"{path.name}.turn"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the device alone: wait until nobody else does, and let nobody begin meanwhile."""
        with _locked(self._turn, fcntl.LOCK_EX), _locked(self._file, fcntl.LOCK_EX):
            yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold the device beside others who do not time, after those who wait to time."""
        with _locked(self._turn, fcntl.LOCK_EX):
            fcntl.flock(self._file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)


@contextmanager
def _locked(file: int, how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _open_for_all(path: Path) -> int:
    """Open a lock that other users' processes take too."""
    try:
        file = no_follow(str(path), os.O_RDWR | os.O_CREAT)
    except PermissionError:  # another user's, in a folder where only its owner may create
        return no_follow(str(path), os.O_RDONLY)
    return file


def lock_of(device: torch.device) -> DeviceLock:
    """Return the lock of a device of this machine."""
    name = "cpu"
    if device.type == "cuda":
        name = str(torch.cuda.get_device_properties(device).uuid)
    return DeviceLock(Path(tempfile.gettempdir()) / f"tokensearch-{name}.lock")


class SharedDeviceEvaluator(PolicyEvaluator):
    """Takes turns on its device with the evaluators of other processes."""

    @cached_property
    def lock(self) -> DeviceLock:
        """That of the device."""
        return lock_of(torch.device(self.cell.device))

    def time(self, *given: Any, **named: Any) -> Comparison:
        """Time a policy alone on the device."""
        with self.lock.alone():
            return super().time(*given, **named)

    def time_model(self, *given: Any, **named: Any) -> Comparison:
        """Time another model alone on the device."""
        with self.lock.alone():
            return super().time_model(*given, **named)

    def time_together(self, *given: Any, **named: Any) -> tuple[Comparison, ...]:
        """Time policies and models alone on the device."""
        with self.lock.alone():
            return super().time_together(*given, **named)

    def profile(self, *given: Any, **named: Any) -> tuple[Profile, ...]:
        """Profile policies alone on the device."""
        with self.lock.alone():
            return super().profile(*given, **named)

    def _logits(
        self, policy: Policy, purpose: Purpose, images: range, load: Callable[[], Tensor]
    ) -> Tensor:
        with self.lock.together():
            return super()._logits(policy, purpose, images, load)
