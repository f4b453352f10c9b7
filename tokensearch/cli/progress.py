"""Progress on stderr: live with the time left on a terminal, plain lines in a pipe."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tokensearch.cli.console import caution as say_caution
from tokensearch.report import text as text_of

# A pipe gets a line when this much time has passed, and at the end of every stage.
LINE_EVERY_S = 5.0


def progress_listener(console: Console) -> "Live | Lines":
    """Return what suits the console."""
    return Live(console) if console.is_terminal else Lines(console)


class Lines:
    """One plain line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = 0.0
        self._unit = ""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def stage(self, title: str, *, unit: str = "") -> None:
        """Begin a new stage, whose progress is counted in `unit`."""
        self._unit = unit and f" {unit}"
        self._console.print(title)

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Say how far it is, if something was not said just now."""
        now = time.monotonic()
        if done == total or now - self._said >= LINE_EVERY_S:
            self._said = now
            left = f", {_left(seconds_left)}" if seconds_left else ""
            self._console.print(f"  {done} of {total}{self._unit}{left}  {text}".rstrip())

    def note(self, text: str) -> None:
        """Say what was found on the way."""
        self._console.print(f"  {text}")

    def caution(self, text: str) -> None:
        """Say what the user should know."""
        say_caution(text)


class Live:
    """A bar per stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task: TaskID | None = None
        self._unit = ""
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} {task.fields[text]}", markup=False),
            console=console,
        )

    def __enter__(self) -> "Live":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def stage(self, title: str, *, unit: str = "") -> None:
        """Begin a new bar, which counts in `unit`; the one before stays as it is."""
        if self._task is not None:
            self._bars.update(self._task, left="", text="")
            self._bars.stop_task(self._task)
        self._unit = unit and f" {unit}"
        self._task = self._bars.add_task(title, total=None, count="", left="", text="")

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Move the bar."""
        if self._task is not None:
            left = _left(seconds_left) if seconds_left else ""
            count = f"{done}/{total}{self._unit}"
            self._bars.update(
                self._task, completed=done, total=total, count=count, left=left, text=text
            )

    def note(self, text: str) -> None:
        """Say what was found on the way, above the bars."""
        self._console.print(text)

    def caution(self, text: str) -> None:
        """Say what the user should know, above the bars."""
        say_caution(text)


def _left(seconds: float) -> str:
    return f"about {text_of.duration(max(0.0, seconds))} left"
