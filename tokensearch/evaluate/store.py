"""Answers that are kept between runs: accuracy belongs to weights, schedule and images alone.

One SQLite file per user. What cannot be read or written is asked of the model again: a cache is
never a reason to fail.
"""

import hashlib
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from tokensearch.data.splits import Split
from tokensearch.evaluate.answers import Answers

# Raised whenever the same key may stand for other answers, after a change of an operator for one.
VERSION = 1
_ROW = np.dtype(
    [(item.name, np.float64 if item.name in {"kl", "ce"} else np.int64) for item in fields(Answers)]
)
PROBES = 8  # images, evenly spread, the first and the last among them
_WAIT_S = 5.0  # for another process that writes
MOST_BYTES = 2**28  # some hundred thousand blocks of images, then the older half goes


@dataclass(frozen=True, slots=True)
class Key:
    """What answers depend on."""

    weights: str  # digest, and the class that holds them
    schedule: str  # hash
    images: str  # fingerprint of the split
    dtype: str

    @property
    def text(self) -> str:
        """One line, for the table."""
        parts = (str(VERSION), torch.__version__, self.weights, self.schedule, self.images)
        return "/".join((*parts, self.dtype))


class AnswerStore:
    """Answers by key and number of their first image; `AnswerStore(None)` keeps nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path if path is None or _ready(path) else None

    @property
    def keeps(self) -> bool:
        """Whether anything that is written can be read again."""
        return self._path is not None

    def get(self, key: Key, first: int, count: int) -> Answers | None:
        """Return the answers to `count` images from number `first` on, if they are known."""
        if self._path is None:
            return None
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base:
                row = base.execute(
                    "SELECT answers FROM answers WHERE key = ? AND first = ?", (key.text, first)
                ).fetchone()
        except sqlite3.Error:
            return None
        if row is None or len(row[0]) != count * _ROW.itemsize:
            return None
        table = np.frombuffer(row[0], dtype=_ROW)
        return Answers(*(torch.from_numpy(table[name].copy()) for name in _names()))

    def put(self, key: Key, first: int, answers: Answers) -> None:
        """Keep answers to the images from number `first` on."""
        if self._path is None:
            return
        table = np.zeros(len(answers), dtype=_ROW)
        for name in _names():
            table[name] = getattr(answers, name).numpy()
        try:
            with closing(sqlite3.connect(self._path, timeout=_WAIT_S)) as base, base:
                base.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?)",
                    (key.text, first, table.tobytes()),
                )
        except sqlite3.Error:
            return


def fingerprint(split: Split) -> str:
    """Name the images of a split by what a model is given: some of them, bit by bit.

    A split's own digest does not say how its images are prepared, in which order they come, or
    whether files were replaced by others of equal size.
    """
    found = hashlib.sha256(f"{split.digest} {len(split)}".encode())
    for place in sorted({round(share * (len(split) - 1) / PROBES) for share in range(PROBES + 1)}):
        image, label = split.part(place, place + 1)
        found.update(image.contiguous().numpy().tobytes() + str(label.tolist()).encode())
    return "sha256:" + found.hexdigest()


def usual_store() -> Path:
    """Where answers are kept: TOKENSEARCH_CACHE, or the user's folder for caches."""
    named = os.environ.get("TOKENSEARCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(named) if named else Path(home) / "tokensearch") / "answers.db"


def _names() -> tuple[str, ...]:
    return tuple(item.name for item in fields(Answers))


def _ready(path: Path) -> bool:
    """Make the table; False where that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_WAIT_S)) as base, base:
            base.execute(
                "CREATE TABLE IF NOT EXISTS answers "
                "(key TEXT, first INTEGER, answers BLOB, PRIMARY KEY (key, first))"
            )
        if path.stat().st_size > MOST_BYTES:
            _forget_older_half(path)
    except (OSError, sqlite3.Error):
        return False
    return True


def _forget_older_half(path: Path) -> None:
    """Rows are numbered as they are written."""
    with closing(sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)) as base:
        base.execute(
            "DELETE FROM answers WHERE rowid <= (SELECT (min(rowid) + max(rowid)) / 2 FROM answers)"
        )
        base.execute("VACUUM")
