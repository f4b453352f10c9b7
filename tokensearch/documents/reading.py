"""From a path to a JSON object, whatever lies there: bounded in bytes, depth, text and numbers."""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable
from math import isinf
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 8 * 2**20  # a policy is a few kB, a front of hundreds with evidence under 1 MB
MAX_DEPTH = 32  # ours nest nine deep: a front's policy's evidence's cell's machine's versions
# Objects and lists, as their marks are counted: each takes thirty times its text. The largest of
# ours, a profile, has one in 75 bytes.
MAX_PARTS = 500_000
MAX_TEXT = 2**17  # the longest word of a command line on Linux (MAX_ARG_STRLEN)


def read_object(
    path: Path, *, what: str, error: type[Exception], most: int = MAX_BYTES
) -> dict[str, Any]:
    """Read a JSON object of at most `most` bytes; `error` with one sentence where there is none."""
    return parse_object(bytes_of(path, what=what, error=error, most=most), error=error)


def bytes_of(path: Path, *, what: str, error: type[Exception], most: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most `most` bytes; never waits for a pipe or a device.

    what  what the file should be, with its article: "a policy"
    """
    try:
        with opened(path, what=what, error=error) as file:
            data = file.read(most + 1)
    except OSError as failure:
        if isinstance(failure, error):
            raise
        raise error(f"the file cannot be read: {failure.strerror or failure}") from failure
    if len(data) > most:
        bound = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
        raise error(f"the file is larger than {bound}; {what} is not")
    return data


def opened(path: Path, *, what: str, error: type[Exception]) -> BinaryIO:
    """Open a regular file for reading; `error` where there is none."""
    try:
        # Without O_NONBLOCK the opening of a pipe waits for somebody to write.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except (OSError, ValueError) as failure:  # a path with a null byte is a ValueError
        reason = getattr(failure, "strerror", None) or failure
        raise error(f"the file cannot be read: {reason}") from failure
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise error(f"the file cannot be read: {what} is a regular file")
    return file


def parse_object(data: bytes, *, error: type[Exception]) -> dict[str, Any]:
    """Parse a JSON object; `error` with one sentence where it is none, or beyond the bounds.

    Strict where JSON's readers differ: UTF-8, no mark before it, no key twice, no NaN.
    """
    if (parts := data.count(b"[") + data.count(b"{")) > MAX_PARTS:
        raise error(f"the file holds {parts} objects and lists; at most {MAX_PARTS} are read")
    try:
        document = json.loads(
            data.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as failure:
        raise error(f"the file is not JSON: {failure}") from failure
    if not isinstance(document, dict):
        raise error(f"the file holds a {type(document).__name__}, not an object")
    try:
        check_bounds(document)
    except ValueError as failure:
        raise error(f"the file {failure}") from failure
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number there")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise ValueError(f"the key {twice!r:.60} stands twice in an object")
    return fields


def check_bounds(document: dict[str, Any]) -> None:
    """ValueError if anything is too deep, too long, not finite, or no text; level by level."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                _check_items(part, deeper)
                _check_items(part.values(), deeper)
            else:
                _check_items(part, deeper)
        if not deeper:
            return
        level = deeper
    raise ValueError(f"nests deeper than {MAX_DEPTH} levels")


def _check_items(items: Iterable[Any], deeper: list[Any]) -> None:
    """Check texts and numbers, and put into `deeper` what has items of its own."""
    for item in items:
        kind = type(item)
        if kind is dict or kind is list:
            deeper.append(item)
        elif kind is str:
            _check_text(item)
        elif (kind is float and isinf(item)) or (kind is int and item.bit_length() > 1024):
            raise ValueError("holds a number that is too large")


def _check_text(value: str) -> None:
    if len(value) > MAX_TEXT:
        raise ValueError(f"holds a text of more than {MAX_TEXT} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a character (a lone surrogate)") from None
