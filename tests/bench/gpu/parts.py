"""A part of a plan: what it runs, how long it may take, how it ended, what it has to show."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).parents[3]
GRACE_S = 3.0  # between the interrupt, at which pytest still sums up, and the kill; of the limit


@dataclass(frozen=True)
class Setting:
    """Where a plan runs, and what it leaves where."""

    out: Path
    device: str  # of torch; "cpu" tries every part, small
    archive: Path | None = None  # everything so far, after each part; OUT.tgz if None

    @property
    def packed(self) -> Path:
        return self.archive or self.out.with_name(f"{self.out.name}.tgz")

    @property
    def tried(self) -> bool:
        """Whether parts only prove that they run."""
        return self.device == "cpu"

    @property
    def cell(self) -> list[str]:
        """Options for what people deploy: a captured graph in half precision."""
        backend, dtype = ("eager", "float32") if self.tried else ("cudagraph", "bfloat16")
        return ["--device", self.device, "--dtype", dtype, "--backend", backend]


@dataclass(frozen=True)
class Part:
    """One process of a plan."""

    name: str  # also of its log
    limit_s: float
    asks: str  # what it is to find out, for the summary
    command: Callable[[Setting], list[str]]  # what follows the interpreter
    show: Callable[[Path], list[str]]  # Markdown from what it left in the folder; any error is said


@dataclass(frozen=True)
class End:
    """How a part ended."""

    code: int | None  # None: it was cut off
    seconds: float
    limit_s: float

    @property
    def words(self) -> str:
        if self.code is None:
            return f"cut off after {self.limit_s:.0f} s"
        return f"exit code {self.code}"


def run(part: Part, setting: Setting, limit_s: float) -> End:
    """Run one part, its output into NAME.log; none of its processes outlives it."""
    start_s = perf_counter()
    with (setting.out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *part.command(setting)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,  # a group of its own, to be killed as one
        )
        code = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, limit_s - GRACE_S))
        finally:
            _end(process)
    return End(code, perf_counter() - start_s, limit_s)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Interrupt the process if it still runs, then kill its whole group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
