"""Results stored between runs: they depend on model, schedule and images alone.

They are stored image by image, so that other splits of the same images find them. There is one
SQLite file per user. Where it cannot be read or written, the model predicts again: a cache is never
a reason to fail. One warning says so, and the file is not used from then on.
"""

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from tokensearch.accuracy.results import ImageResults
from tokensearch.errors import TokensearchWarning

# Raised whenever the same key may mean other results, for example when an operator changes.
VERSION = 2
_ROW = np.dtype(
    [
        (item.name, np.float64 if item.name in {"kl", "ce"} else np.int64)
        for item in fields(ImageResults)
    ]
)
_WAIT_S = 5.0  # seconds to wait for another process that writes
MOST_BYTES = 2**28  # results of some two million images; beyond it the older half goes


@dataclass(frozen=True, slots=True)
class Key:
    """What results depend on, besides the images."""

    model: str  # digest of its identity
    schedule: str  # hash
    dtype: str
    device: str  # "cpu", "cuda"

    @property
    def digest(self) -> bytes:
        """Digest of all fields, for the table."""
        parts = (str(VERSION), self.model, self.schedule, self.dtype, self.device)
        return hashlib.sha256("/".join(parts).encode()).digest()[:16]


class PredictionStore:
    """Results by key and image; `PredictionStore(None)` stores nothing.

    Images are named by their content as a model gets it (`data.splits.contents`).
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        if path is not None:
            try:
                _prepare_file(path)
            except (OSError, sqlite3.Error) as error:
                self._give_up(error)

    @property
    def keeps(self) -> bool:
        """Whether results that are written can be read again."""
        return self._path is not None

    def get(self, key: Key, images: Sequence[str]) -> ImageResults | None:
        """Return the results of `images`, in order, if all are stored."""
        if not self.keeps:
            return None
        rows = self._read_rows(key.digest, images)
        stored = [rows.get(image, b"") for image in images]
        if any(len(row) != _ROW.itemsize for row in stored):
            return None
        table = np.frombuffer(b"".join(stored), dtype=_ROW)
        return ImageResults(*(torch.from_numpy(table[name].copy()) for name in _names()))

    def put(self, key: Key, images: Sequence[str], results: ImageResults) -> None:
        """Store the results of `images`."""
        if not self.keeps:
            return
        table = np.zeros(len(results), dtype=_ROW)
        for name in _names():
            table[name] = getattr(results, name).numpy()
        rows = [
            (key.digest, image, row.tobytes()) for image, row in zip(images, table, strict=True)
        ]
        self._write_rows(rows)

    def forget(self, key: Key) -> None:
        """Delete all results under a key."""
        self._write("DELETE FROM answered WHERE key = ?", [(key.digest,)])

    def _read_rows(self, key: bytes, images: Sequence[str]) -> Mapping[str, bytes]:
        """Return what is stored under a key, by image."""
        if self._path is None:
            return {}
        query = f"SELECT image, answer FROM answered WHERE key = ? AND image IN ({_marks(images)})"
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base:
                return dict(base.execute(query, (key, *images)).fetchall())
        except sqlite3.Error as error:
            self._give_up(error)
            return {}

    def _write_rows(self, rows: Sequence[tuple[bytes, str, bytes]]) -> None:
        """Store rows of key, image and result."""
        self._write("INSERT OR REPLACE INTO answered VALUES (?, ?, ?)", rows)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._path is None:
            return
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base, base:
                base.executemany(statement, rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Continue without the file, with a warning."""
        warnings.warn(
            f"predictions are not stored for later runs, since {self._path} cannot be used: "
            f"{error}; free space on its disk, or delete it",
            TokensearchWarning,
            stacklevel=3,
        )
        self._path = None


def _marks(images: Sequence[str]) -> str:
    return ", ".join("?" * len(images))


def default_store_path() -> Path:
    """Return where results are stored: TOKENSEARCH_CACHE, or the user's folder for caches."""
    named = os.environ.get("TOKENSEARCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(named) if named else Path(home) / "tokensearch") / "answers.db"


def _names() -> tuple[str, ...]:
    return tuple(item.name for item in fields(ImageResults))


def _prepare_file(path: Path) -> None:
    """Create the table, and make room in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=_WAIT_S)) as base, base:
        base.execute("DROP TABLE IF EXISTS answers")  # of version 1
        base.execute(
            "CREATE TABLE IF NOT EXISTS answered "
            "(key BLOB, image TEXT, answer BLOB, PRIMARY KEY (key, image))"
        )
    if path.stat().st_size > MOST_BYTES:
        _delete_older_half(path)


def _delete_older_half(path: Path) -> None:
    """Delete the rows with the lower numbers: rows are numbered as they are written."""
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as base:
        base.execute(
            "DELETE FROM answered "
            "WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM answered)"
        )
        base.execute("VACUUM")
