"""Whatever lies at a path becomes a JSON object within bounds, or one sentence."""

import os
from pathlib import Path

import pytest

from tokensearch.documents import MAX_TEXT, bytes_of, parse_object, read_object
from tokensearch.documents.reading import MAX_DEPTH
from tokensearch.errors import RunError


def said(data: bytes) -> str:
    with pytest.raises(RunError) as caught:
        parse_object(data, error=RunError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def many(count: int) -> bytes:
    """An object of as many keys, of which the last stands twice."""
    return b"{" + b",".join(b'"%d":0' % key for key in range(count)) + b',"z":0,"z":0}'


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "the file is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": NaN}', "the file is not JSON: NaN is no number there"),
        (b'{"a": -Infinity}', "the file is not JSON: -Infinity is no number there"),
        (b'{"a": 1e999}', "the file holds a number that is too large"),
        (b'{"a": 1, "a": 2}', "the file is not JSON: the key 'a' stands twice in an object"),
        (many(300_000), "the file is not JSON: the key 'z' stands twice in an object"),
        (b'{"a": ' + b"9" * 400 + b"}", "the file holds a number that is too large"),
        (b'{"a": "\\ud800"}', "the file holds half of a character (a lone surrogate)"),
        (b'{"\\udc00": 1}', "the file holds half of a character (a lone surrogate)"),
        (b"[1]", "the file holds a list, not an object"),
        (b"[" * 600_000, "the file holds 600000 objects and lists; at most 500000 are read"),
        (nested(MAX_DEPTH + 1), f"the file nests deeper than {MAX_DEPTH} levels"),
        (
            b'{"a": "' + b"x" * (MAX_TEXT + 1) + b'"}',
            f"the file holds a text of more than {MAX_TEXT} characters",
        ),
    ],
)
def test_what_is_no_document_is_refused(data: bytes, sentence: str) -> None:
    assert said(data) == sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
        (b'{"a": "\xff"}', "'utf-8' codec can't decode byte 0xff"),
        ('{"a": 1}'.encode("utf-16"), "'utf-8' codec can't decode byte 0xff"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300"),
        (b"[" * 400_000, "recursion"),
    ],
)
def test_what_python_says_of_a_damaged_file_is_passed_on(data: bytes, sentence: str) -> None:
    assert said(data).startswith("the file is not JSON: ")
    assert sentence in said(data)


def test_what_is_within_the_bounds_is_read() -> None:
    parse_object(nested(MAX_DEPTH), error=RunError)

    assert parse_object(b'{"a": [1, 2.5, "\\ud83d\\ude00"]}', error=RunError) == {
        "a": [1, 2.5, "\N{GRINNING FACE}"]
    }


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")

    with pytest.raises(RunError) as caught:
        read_object(tmp_path / "pipe.json", what="a run", error=RunError)

    assert str(caught.value) == "the file cannot be read: a run is a regular file"


@pytest.mark.parametrize("name", ["/dev/zero", "/"])
def test_a_device_and_a_folder_are_no_files(name: str) -> None:
    with pytest.raises(RunError, match="the file cannot be read: "):
        read_object(Path(name), what="a run", error=RunError)


def test_a_path_with_a_null_byte_is_refused() -> None:
    with pytest.raises(RunError, match="the file cannot be read: embedded null byte"):
        read_object(Path("a\0b"), what="a run", error=RunError)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(bytes(2**20 + 1))

    with pytest.raises(RunError) as caught:
        bytes_of(path, what="a run", error=RunError, most=2**20)

    assert str(caught.value) == "the file is larger than 1 MiB; a run is not"
