"""What the probe notes: each measurement on its own, an error as one line, the file whole."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tokensearch.files import write_whole

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

    def __init__(self, file: Path | None) -> None:
        self._file, self._start_s = file, perf_counter()
        self.document: dict[str, dict[str, Any]] = {}

    def take(self, name: str, section: Section, device: torch.device, *, until_s: float) -> None:
        """Measure a section, and say what ended it early; it begins nothing after `until_s`."""
        found = self.document.setdefault(name, {})

        def measure_all() -> str | None:
            for what, measure in section(device):
                if perf_counter() - self._start_s > until_s:
                    return f"{until_s:.0f} s were over"
                found[what] = guarded(measure)
                self._write()
            return None

        stopped = guarded(measure_all)
        if stopped is not None:
            found["section stopped"] = stopped
        self._write()

    def _write(self) -> None:
        if self._file is not None:
            write_whole(self._file, json.dumps(self.document, indent=1, default=str) + "\n")
