"""The file of the studies: opened, made whole, and its errors as sentences."""

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy import Connection, MetaData, func, insert, select

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


def add_trials(storage: RDBStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
    """Add finished trials to a study at once, as Optuna would one by one.

    Optuna looks up every trial, parameter and attribute before it writes it: 28 ms a trial. The
    tables are read from the file; a version of Optuna that has others meets a test.
    """
    if not trials:
        return
    with storage.engine.begin() as connection:
        tables = MetaData()
        tables.reflect(connection)
        table = tables.tables["trials"]
        first = connection.execute(
            select(func.coalesce(func.max(table.c.trial_id), 0))
        ).scalar_one()
        number = connection.execute(
            select(func.count()).where(table.c.study_id == study_id)
        ).scalar_one()
        numbered = [(first + 1 + index, trial) for index, trial in enumerate(trials)]
        rows: dict[str, list[dict[str, Any]]] = {
            "trials": [
                {
                    "trial_id": trial_id,
                    "number": number + index,
                    "study_id": study_id,
                    "state": trial.state.name,
                    "datetime_start": _as_utc(trial.datetime_start),
                    "datetime_complete": _as_utc(trial.datetime_complete),
                }
                for index, (trial_id, trial) in enumerate(numbered)
            ],
            "trial_values": [
                {"trial_id": key, "objective": place, "value": value, "value_type": "FINITE"}
                for key, trial in numbered
                for place, value in enumerate(trial.values)
            ],
            "trial_params": [row for key, trial in numbered for row in _parameters(key, trial)],
            "trial_user_attributes": [
                {"trial_id": key, "key": name, "value_json": json.dumps(value)}
                for key, trial in numbered
                for name, value in trial.user_attrs.items()
            ],
        }
        _insert(connection, tables, rows)


def _parameters(trial_id: int, trial: FrozenTrial) -> Iterator[dict[str, Any]]:
    for name, value in trial.params.items():
        kind = trial.distributions[name]
        yield {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": kind.to_internal_repr(value),
            "distribution_json": distribution_to_json(kind),
        }


def _insert(
    connection: Connection, tables: MetaData, rows: Mapping[str, list[dict[str, Any]]]
) -> None:
    for name, some in rows.items():
        if some:
            connection.execute(insert(tables.tables[name]), some)


def _as_utc(when: datetime | None) -> datetime | None:
    """Return a local time without zone as Optuna keeps it."""
    return None if when is None else when.astimezone(UTC).replace(tzinfo=None)


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
