"""Figures that were measured name the command that prints them, and the file that keeps them.

A paragraph, table or block of README.md or docs/ with a measured figure follows a comment:

    <!-- figures: COMMAND -> FILE -->    what the command gave is kept in FILE, and was looked up
    <!-- figures: set in FILE -->        a setting of the code, which was never measured
    <!-- figures: owed, REASON -->       kept nowhere: one more is one too many

Targets, such as 0.5x or 5ms, are no figures. An entry of DECISIONS.md names a bench, a test or a
report where it has any, or says that nothing prints it.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
COMMANDS = "make ", "tokensearch ", "python -m tests.bench "
KEPT = "reports/", "tests/bench/results/"
OWED = 1  # the ledger that docs/measuring.md shows; it may only fall

MEASURED = re.compile(
    r"\d ms\b|\d (?:points|nats)\b|\d\.\d\dx|\[[-+]?\d[\d.]*, [-+]?\d[\d.]*\]|\d % of the baseline"
)
LOOKED_UP = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)(?: ms\b|x(?![\w]))")
COMMENT = re.compile(r"<!-- figures: (.+?) -->")
NEWEST = "## 2026-11-28"
SOURCE = re.compile(
    r"tests/|reports/|python -m tests|`make (?:run|test|gpu|soak|bench)|tokensearch \w|No bench|"
    r"run --minutes|nothing prints"
)


class Passage(NamedTuple):
    """Text between blank lines, or a whole block of code, and the comment before it."""

    page: str
    text: str
    comment: str | None


def passages(page: Path) -> Iterator[Passage]:
    """Yield what a page is made of; examples of code hold no figures."""
    comment, fence, lines = None, "", list[str]()
    for line in [*page.read_text().splitlines(), ""]:
        if said := COMMENT.fullmatch(line.strip()):
            comment = said[1]
            continue
        if line.startswith("```"):
            fence = "" if fence else line
        lines.append(line)
        if line or fence:
            continue
        text = "\n".join(lines).strip()
        lines = []
        if text and not text.startswith(("```python", "    tokensearch", "<!--")):
            yield Passage(page.name, text, comment)
        if text:
            comment = None


def figures() -> list[Passage]:
    """Every passage with a figure that was measured, or that says it was."""
    every = [one for page in PAGES for one in passages(page)]
    return [one for one in every if one.comment or MEASURED.search(one.text)]


def numbers_in(file: Path) -> set[float]:
    """Return every number that a stored file holds."""
    if file.suffix != ".json":
        return {float(number) for number in re.findall(r"\d+(?:\.\d+)?", file.read_text())}
    return set(_numbers(json.loads(file.read_text())))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, int | float):
        yield float(value)


def is_kept(figure: str, kept: set[float]) -> bool:
    """Whether a number rounds to a figure as it is written."""
    reach = 0.5 * 10 ** -len(figure.partition(".")[2]) + 1e-9
    return any(abs(number - float(figure)) <= reach for number in kept)


def test_every_measured_figure_says_where_it_comes_from() -> None:
    silent = [(one.page, one.text[:80]) for one in figures() if one.comment is None]

    assert silent == []


@pytest.mark.parametrize(
    "passage",
    [one for one in figures() if " -> " in (one.comment or "")],
    ids=lambda one: f"{one.page}: {one.comment}",
)
def test_a_quoted_figure_is_in_the_file_that_keeps_it(passage: Passage) -> None:
    assert passage.comment is not None
    command, _, name = passage.comment.partition(" -> ")
    kept = numbers_in(ROOT / name)

    assert command.startswith(COMMANDS)
    assert name.startswith(KEPT)
    quoted = LOOKED_UP.findall(passage.text)
    assert quoted
    assert [figure for figure in quoted if not is_kept(figure, kept)] == []


def test_other_comments_are_of_the_two_other_kinds() -> None:
    others = [one.comment for one in figures() if one.comment and " -> " not in one.comment]

    for comment in others:
        if comment.startswith("set in "):
            assert (ROOT / comment.removeprefix("set in ")).is_file()
        else:
            assert comment.startswith("owed, ")
    assert sum(comment.startswith("owed, ") for comment in others) <= OWED


def test_the_newest_decisions_name_what_printed_their_figures() -> None:
    text = (ROOT / "DECISIONS.md").read_text()
    entries = re.split(r"(?m)^(?=## )", text)
    newest = [entry for entry in entries if entry.startswith(NEWEST)]
    silent = [
        entry.partition("\n")[0]
        for entry in newest
        if MEASURED.search(entry) and not SOURCE.search(entry)
    ]

    assert len(newest) > 1
    assert silent == []


def test_a_figure_that_nothing_keeps_is_seen() -> None:
    kept = {49.13, 0.3761}

    assert is_kept("49.1", kept)
    assert is_kept("0.38", kept)
    assert not is_kept("49.2", kept)
    assert not is_kept("0.37", kept)
    assert MEASURED.search("takes 49.1 ms")
    assert not MEASURED.search("a target of 0.5x or 5ms")
