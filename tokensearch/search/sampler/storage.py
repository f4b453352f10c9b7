"""The file of the studies: opened, made whole, and its errors as sentences."""

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from tokensearch.errors import RunError
from tokensearch.files import describe_refusal, in_place_of

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)  # the value, the latency
# SQLite's codes for a sound file that cannot be written now.
_NOT_WRITABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


def open_storage(file: Path) -> RDBStorage:
    """Open a study's file without waiting for the disk at every write, which Optuna makes many of.

    A killed process loses nothing by it. A machine that loses power may damage the file: once it is
    deleted it is made anew from `trials.jsonl`, which does wait. Measured on 62 proposals of a tiny
    model: 9 of 39 s.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return RDBStorage(f"sqlite:///{file}", engine_kwargs={"creator": connect})


def make_studies(study: Path, names: Iterable[str]) -> None:
    """Make a file of empty studies completely or not at all.

    A disk that becomes full in between would leave tables without their constraints. A second study
    would then be made beside the first, and neither could be opened.
    """
    with in_place_of(study) as part:
        storage = open_storage(part)
        try:
            for name in names:
                optuna.create_study(study_name=name, storage=storage, directions=DIRECTIONS)
        finally:
            storage.engine.dispose()


@contextmanager
def using_study(study: Path) -> Iterator[None]:
    """Turn errors of SQLite about the study, inside those of other packages, into a RunError."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if _find_sqlite_error(error) is None:
            raise
        raise study_failure(study, error) from error


def study_failure(study: Path, error: Exception) -> RunError:
    """Return the error that tells whether disk or file is at fault, and what to do."""
    cause = _find_sqlite_error(error)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the primary code
    if code == sqlite3.SQLITE_FULL:
        return RunError(describe_refusal(study, OSError(errno.ENOSPC, str(cause))))
    if code in _NOT_WRITABLE:
        return RunError(f"{study} cannot be written: {cause}")
    return RunError(
        f"{study} cannot be read as an Optuna study ({cause or error}); delete it and give the "
        f"same command again: it is made anew from trials.jsonl, which holds every trial"
    )


def _find_sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error
