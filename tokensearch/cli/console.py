"""Where commands write: results to stdout, all else to stderr, files whole or not at all."""

import errno
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tokensearch.errors import RunError
from tokensearch.files import make_folder, refuse_unwritable, write_whole
from tokensearch.policy.file import to_text
from tokensearch.records.measurements import Caution
from tokensearch.redaction import hide_secrets
from tokensearch.report.text import plain

PIPE_COLUMNS = 120  # a pipe has no width of its own; fixed, so that scripts see the same everywhere


class PlainConsole(Console):
    """Shows text that comes from files as text: whatever else it would do to a terminal, it says.

    A line that is printed stays one line; what is drawn (tables, several lines) keeps its own.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, with controls in plain strings spelled out."""
        super().print(*(plain(one) if isinstance(one, str) else one for one in objects), **options)

    def on_broken_pipe(self) -> None:
        """Leave it to the command line; rich ends the process with the code of a failure."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with controls in drawn text spelled out; those of bars that move are rich's."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(_shown(segment.text), segment.style)


def _shown(drawn: str) -> str:
    if drawn.isprintable():
        return drawn
    return "\n".join(map(plain, drawn.split("\n")))


def _console(*, stderr: bool) -> Console:
    # File names and model names hold brackets and colons: nothing is markup, emoji or highlighted.
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(
        stderr=stderr,
        width=None if stream.isatty() else PIPE_COLUMNS,
        markup=False,
        emoji=False,
        highlight=False,
    )


out = _console(stderr=False)  # results
err = _console(stderr=True)  # progress, cautions and errors


def print_json(document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a document on stdout, as JSON and nothing else."""
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def error(message: str, notes: Sequence[str] = ()) -> None:
    """Print what went wrong, and where, on stderr, in one line."""
    where = f" ({', '.join(map(hide_secrets, notes))})" if notes else ""
    err.print(f"error: {hide_secrets(message)}{where}", style="red", soft_wrap=True)


def caution(message: str) -> None:
    """Print a reason for doubt on stderr, in one line."""
    err.print(hide_secrets(f"caution: {' '.join(message.split())}"), style="yellow", soft_wrap=True)


# Where these verbs have an option for it. Neither warm-up nor traced passes can be asked for.
_HERE = {
    Caution.SLOW_START: "repeat, or allow more --seconds, so that it counts for less",
    Caution.WIDE_SPREAD: "stop other work on the machine, or allow more --seconds",
    Caution.FEW_PASSES: "allow more --seconds",
    Caution.COARSE_CLOCK: "use a larger --batch-size",
    Caution.PROFILER_DISAGREES: "trust the clock, or repeat with more --seconds",
}


def with_remedy(doubt: Caution) -> str:
    """Return what is doubtful, and what the user can do about it here."""
    what, general = doubt.value.split(": ")
    return f"{what}: {_HERE.get(doubt, general)}"


def check_file(path: Path) -> None:
    """See whether a file could be written, and leave nothing behind; RunError if not."""
    if path.is_dir():
        raise RunError(f"{path} cannot be written: it is a folder")
    refuse_unwritable(path.parent, path)


def check_writable(path: Path) -> None:
    """See whether a folder could be written that need not exist; RunError if not."""
    try:
        refuse_unwritable(path, path)
    except RunError as failure:
        failure.add_note("name another folder with --out")
        raise


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document whole; RunError where it cannot be written."""
    make_folder(path.parent)
    write_whole(path, to_text(document))
