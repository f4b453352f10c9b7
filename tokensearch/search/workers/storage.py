"""The storage of a study that several processes share: opened by its address, and waited for."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage, get_storage
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, ProgrammingError

from tokensearch.errors import RunError, first_line
from tokensearch.redaction import hide_secrets

POSTGRES, PROXY = "postgresql+psycopg", "grpc"
PORT = 13000  # of Optuna's proxy, where an address names none
PATIENCE_S = 60.0  # a database is restarted in less
# What PostgreSQL says to whom it will never let in; libpq gives no code for it.
REFUSALS = ("authentication failed", "does not exist", "no pg_hba.conf entry")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class SharedStorage:
    """A storage that several processes use."""

    address: str
    studies: BaseStorage  # Optuna's; its calls wait while the storage is away
    database: Engine | None  # it is in; None behind a proxy, which passes on Optuna's calls alone


@contextmanager
def shared_storage(address: str) -> Iterator[SharedStorage]:
    """Open the storage at an address, until the context is left.

    Raises:
        RunError: The address is of no kind that several processes can share, or nobody answers;
            and when the storage stays away, inside the context.
    """
    with using_storage(address):
        opened = wait_while_away(partial(_open, address))
        database = opened.engine if isinstance(opened, RDBStorage) else None
        studies = cast(BaseStorage, _PatientStorage(get_storage(opened)))
        try:
            yield SharedStorage(address, studies, database)
        finally:
            if database is not None:
                database.dispose()


def _open(address: str) -> BaseStorage:
    if check_address(address) == POSTGRES:
        try:
            return _open_database(address)
        except ModuleNotFoundError as error:
            raise RunError(
                "a study in PostgreSQL needs psycopg; pip install 'tokensearch[postgres]'"
            ) from error
    where = urlsplit(address)
    return GrpcStorageProxy(host=where.hostname or "localhost", port=where.port or PORT)


def _open_database(address: str) -> RDBStorage:
    options = {"pool_pre_ping": True}
    try:
        return RDBStorage(address, engine_kwargs=options)
    except (IntegrityError, ProgrammingError):  # another process was making the tables
        return RDBStorage(address, engine_kwargs=options)


def check_address(address: str) -> str:
    """Return the kind of an address; RunError for one that processes cannot share."""
    kind = address.partition("://")[0]
    if kind in (POSTGRES, PROXY):
        return kind
    raise RunError(
        f"storage {hide_secrets(address)!r} cannot be shared by processes; give "
        f"{POSTGRES}://USER@HOST/DATABASE, or {PROXY}://HOST:PORT of Optuna's proxy"
    )


class _PatientStorage:
    """Repeats the calls of a storage while that is away, for a minute at most.

    A call that was carried out, but whose answer was lost, is carried out twice. A result is then
    refused as that of a finished trial; a trial begun twice is found without a sign of life.
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._storage, name)
        return partial(wait_while_away, value) if callable(value) else value


def wait_while_away(call: Callable[..., _Result], *given: Any, **named: Any) -> _Result:
    """Return what a call returns, once a database or proxy that is away is back."""
    wait_s, end_s = FIRST_WAIT_S, time.monotonic() + PATIENCE_S
    while True:
        try:
            return call(*given, **named)
        except Exception as error:
            if not is_away(error) or time.monotonic() + wait_s > end_s:
                raise
        time.sleep(wait_s * random.uniform(0.5, 1.0))  # not all workers at once
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def is_away(error: BaseException | None) -> bool:
    """Whether an error says that a database or proxy cannot be reached now."""
    while error is not None:
        if _is_remote(error):
            return bool(error.code().name == "UNAVAILABLE")  # type: ignore[attr-defined]  # grpc's
        if isinstance(error, DBAPIError):
            refused = any(words in str(error.orig) for words in REFUSALS)
            return not refused and type(error).__name__ in {"OperationalError", "InterfaceError"}
        # A session that lost its connection within a transaction says so while it is left.
        left = isinstance(error, PendingRollbackError)
        error = error.__context__ if left else error.__cause__
    return False


def _is_remote(error: BaseException) -> bool:
    """Whether an error is of gRPC, which need not be installed."""
    return any(kind.__name__ == "RpcError" for kind in type(error).__mro__)


@contextmanager
def using_storage(address: str) -> Iterator[None]:
    """Turn errors of a shared storage into a RunError."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, StorageInternalError | DBAPIError) or _is_remote(error)):
            raise
        cause = getattr(error.__cause__, "orig", None) or getattr(error, "orig", None) or error
        raise RunError(
            f"storage {hide_secrets(address)} cannot be used: {hide_secrets(first_line(cause))}; "
            f"once it can, the same command goes on from the trials that are finished"
        ) from error
