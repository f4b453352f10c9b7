"""The structure is what the documents say it is: sizes, names, rooms."""

import ast
from pathlib import Path

import pytest

from tests.bench.structure import defined_twice

PACKAGE = Path(__file__).parents[1] / "tokensearch"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 400  # lines

# Public names that two modules define, and why.
TWICE = {
    "freeze": "the command, and what it calls",
    "export": "the command, and what it calls",
    "load": "one per file format",
    "main": "two programs",
    "preset": "the public name takes a model as well",
    "profile": "the command, and what it calls",
    "runtime": "one per file format",
    "save": "one per file format",
}


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    assert [path.name for path in FILES if len(path.read_text().splitlines()) > LONGEST] == []


def test_a_public_name_is_defined_once_or_has_a_reason() -> None:
    twice = defined_twice({path: ast.parse(path.read_text()) for path in FILES})

    assert set(twice) == set(TWICE)


@pytest.mark.parametrize("room", sorted(path.parent for path in PACKAGE.rglob("__init__.py")))
def test_every_room_says_what_it_is_for(room: Path) -> None:
    assert ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
