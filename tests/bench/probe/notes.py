"""What the probe notes: each measurement on its own, an error as one line, the file whole."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tokensearch.policy.file import write_whole

Measure = Callable[[], Any]
Section = Callable[[torch.device], Iterator[tuple[str, Measure]]]


def guarded(measure: Measure) -> Any:
    """Return what is measured, or what went wrong, in a line."""
    try:
        return measure()
    except Exception as error:  # noqa: BLE001 - what fails on an unknown machine is what is asked
        lines = str(error).splitlines() or [""]
        return f"{type(error).__name__}: {lines[0]}"


class Notes:
    """A document of sections, written after every measurement that took time."""

    def __init__(self, file: Path | None, within_s: float) -> None:
        self._file, self._within_s, self._start_s = file, within_s, perf_counter()
        self.document: dict[str, dict[str, Any]] = {}

    def take(self, name: str, section: Section, device: torch.device) -> None:
        """Measure a section; what comes after the time is up is said to be missing."""
        found = self.document.setdefault(name, {})
        found_error = guarded(lambda: self._measure(found, section, device))
        if found_error is not None:
            found["section stopped"] = found_error
        self._write()

    def _measure(self, found: dict[str, Any], section: Section, device: torch.device) -> None:
        for what, measure in section(device):
            if perf_counter() - self._start_s > self._within_s:
                found["section stopped"] = f"after {self._within_s:.0f} s"
                return
            found[what] = guarded(measure)
            self._write()

    def _write(self) -> None:
        if self._file is not None:
            write_whole(self._file, json.dumps(self.document, indent=1, default=str) + "\n")
