"""Answers that are kept between runs: accuracy belongs to model, schedule and images alone.

Kept image by image, so that other splits of the same images find them. One SQLite file per user.
What cannot be read or written is asked of the model again: a cache is never a reason to fail. That
is said once, and the file is let alone from then on.
"""

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from tokensearch.accuracy.results import ImageResults
from tokensearch.errors import TokensearchWarning

# Raised whenever the same key may stand for other answers, after a change of an operator for one.
VERSION = 2
_ROW = np.dtype(
    [
        (item.name, np.float64 if item.name in {"kl", "ce"} else np.int64)
        for item in fields(ImageResults)
    ]
)
_WAIT_S = 5.0  # for another process that writes
MOST_BYTES = 2**28  # some two million answers, then the older half goes


@dataclass(frozen=True, slots=True)
class Key:
    """What answers depend on, but for the images."""

    model: str  # digest of its identity
    schedule: str  # hash
    dtype: str
    device: str  # "cpu", "cuda"

    @property
    def digest(self) -> bytes:
        """All of it, for the table."""
        parts = (str(VERSION), self.model, self.schedule, self.dtype, self.device)
        return hashlib.sha256("/".join(parts).encode()).digest()[:16]


class AnswerStore:
    """Answers by key and image; `AnswerStore(None)` keeps nothing.

    Images are named by what a model is given of them (`data.splits.contents`).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            try:
                _make_ready(path)
            except (OSError, sqlite3.Error) as error:
                self._give_up(error)

    @property
    def keeps(self) -> bool:
        """Whether anything that is written can be read again."""
        return self._path is not None

    def get(self, key: Key, images: Sequence[str]) -> ImageResults | None:
        """Return the answers to `images`, in order, if all are known."""
        if self._path is None:
            return None
        ask = f"SELECT image, answer FROM answered WHERE key = ? AND image IN ({_marks(images)})"
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base:
                rows = dict(base.execute(ask, (key.digest, *images)).fetchall())
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        found = [rows.get(image, b"") for image in images]
        if any(len(row) != _ROW.itemsize for row in found):
            return None
        table = np.frombuffer(b"".join(found), dtype=_ROW)
        return ImageResults(*(torch.from_numpy(table[name].copy()) for name in _names()))

    def put(self, key: Key, images: Sequence[str], answers: ImageResults) -> None:
        """Keep the answers to `images`."""
        if self._path is None:
            return
        table = np.zeros(len(answers), dtype=_ROW)
        for name in _names():
            table[name] = getattr(answers, name).numpy()
        rows = [
            (key.digest, image, row.tobytes()) for image, row in zip(images, table, strict=True)
        ]
        self._write("INSERT OR REPLACE INTO answered VALUES (?, ?, ?)", rows)

    def forget(self, key: Key) -> None:
        """Forget all answers under a key."""
        self._write("DELETE FROM answered WHERE key = ?", [(key.digest,)])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._path is None:
            return
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base, base:
                base.executemany(statement, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Go on without the file, and say so."""
        warnings.warn(
            f"answers are not remembered for later runs, since {self._path} cannot be used: "
            f"{error}; free space on its disk, or delete it",
            TokensearchWarning,
            stacklevel=3,
        )
        self._path = None


def _marks(images: Sequence[str]) -> str:
    return ", ".join("?" * len(images))


def usual_store() -> Path:
    """Where answers are kept: TOKENSEARCH_CACHE, or the user's folder for caches."""
    named = os.environ.get("TOKENSEARCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(named) if named else Path(home) / "tokensearch") / "answers.db"


def _names() -> tuple[str, ...]:
    return tuple(item.name for item in fields(ImageResults))


def _make_ready(path: Path) -> None:
    """Make the table, and room in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=_WAIT_S)) as base, base:
        base.execute("DROP TABLE IF EXISTS answers")  # of version 1
        base.execute(
            "CREATE TABLE IF NOT EXISTS answered "
            "(key BLOB, image TEXT, answer BLOB, PRIMARY KEY (key, image))"
        )
    if path.stat().st_size > MOST_BYTES:
        _forget_older_half(path)


def _forget_older_half(path: Path) -> None:
    """Rows are numbered as they are written."""
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as base:
        base.execute(
            "DELETE FROM answered "
            "WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM answered)"
        )
        base.execute("VACUUM")
