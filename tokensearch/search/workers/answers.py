"""Results of predictions in the database of a study: `PredictionStore` for many machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tokensearch.accuracy.store import Key, PredictionStore, default_store_path
from tokensearch.search.workers.storage import SharedStorage, wait_while_away

_TABLE = "tokensearch_answered"
_MAKE = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE} "
    "(key bytea, image text, answer bytea, PRIMARY KEY (key, image))"
)
_READ = f"SELECT image, answer FROM {_TABLE} WHERE key = :key AND image = ANY(:images)"
_WRITE = (
    f"INSERT INTO {_TABLE} VALUES (:key, :image, :answer) "
    "ON CONFLICT (key, image) DO UPDATE SET answer = excluded.answer"
)
_FORGET = f"DELETE FROM {_TABLE} WHERE key = :key"


def store_beside(storage: SharedStorage) -> PredictionStore:
    """Return the store in the database of a study; behind a proxy that of this machine's user."""
    if storage.database is not None:
        return SharedPredictionStore(storage.database)
    return PredictionStore(default_store_path())


class SharedPredictionStore(PredictionStore):
    """Results by key and image, in a table of a database, whose absence is waited for."""

    def __init__(self, database: Engine) -> None:
        super().__init__(None)
        self._database = database
        try:
            wait_while_away(self._execute, _MAKE)
        except (IntegrityError, ProgrammingError):  # another worker was making it
            wait_while_away(self._execute, _MAKE)

    @property
    def keeps(self) -> bool:
        """Whether results that are written can be read again."""
        return True

    def forget(self, key: Key) -> None:
        """Delete all results under a key."""
        wait_while_away(self._execute, _FORGET, {"key": key.digest})

    def _read_rows(self, key: bytes, images: Sequence[str]) -> Mapping[str, bytes]:
        given = {"key": key, "images": list(images)}
        return wait_while_away(self._query, given)

    def _query(self, given: Mapping[str, Any]) -> Mapping[str, bytes]:
        with self._database.connect() as connection:
            rows = connection.execute(text(_READ), given).all()
        return {image: bytes(answer) for image, answer in rows}

    def _write_rows(self, rows: Sequence[tuple[bytes, str, bytes]]) -> None:
        given = [dict(zip(("key", "image", "answer"), row, strict=True)) for row in sorted(rows)]
        wait_while_away(self._execute, _WRITE, given)  # sorted: two writers cannot wait in a ring

    def _execute(self, statement: str, given: Any = None) -> None:
        with self._database.begin() as connection:
            connection.execute(text(statement), given)
