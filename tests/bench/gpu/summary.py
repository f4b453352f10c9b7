"""The summary that people read: figures of every part, and what went wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.gpu.parts import Part
from tests.bench.gpu.shown import table

# What reading a document may raise that is not as it should be.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError)


def summary(parts: Sequence[Part], document: Mapping[str, Any], folder: Path) -> str:
    """Return the summary of a plan so far, in Markdown.

    document  what `summary.json` holds
    folder    where the parts left their files
    """
    ends = document["parts"]
    rows = [(part.name, part.asks, *times(ends[part.name])) for part in parts]
    lines = [
        f"# GPU report, {document['plan']} plan, on {document['device']}",
        "",
        f"{document['machine']}. Until {document['until']}, after {document['seconds']:.0f} s.",
        "",
        *table(("part", "what it asks", "how it ended", "seconds", "limit"), rows),
    ]
    for part in parts:
        if (folder / f"{part.name}.log").is_file():  # it was begun
            lines += ["", f"## {part.name}", "", *shown(part, folder)]
    large = document["left_out_of_the_archive"]
    if large:
        lines += ["", f"Too large for the archive: {', '.join(large)}."]
    return "\n".join(lines) + "\n"


def times(end: Mapping[str, Any]) -> tuple[str, str, str]:
    return end["ended"], f"{end['seconds']:.0f}", f"{end['limit_s']:.0f}"


def shown(part: Part, folder: Path) -> list[str]:
    """A part's figures, or what kept them from being read."""
    try:
        return part.show(folder)
    except UNREADABLE as error:
        return [f"Its figures cannot be shown: {type(error).__name__}: {error}"]
