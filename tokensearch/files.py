"""Files that appear whole or not at all; what is said where the system refuses to write one."""

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile

from tokensearch.errors import RunError

FULL = {errno.ENOSPC, errno.EDQUOT}  # a disk, or this user's share of it


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, so that nobody ever reads half a file.

    It is on the disk when this returns. A link at `path` is replaced, not followed.

    Raises:
        RunError: It cannot be written; what was there before still is.
    """
    data = content.encode() if isinstance(content, str) else content
    with in_place_of(path) as part, open(part, "xb", opener=no_follow) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """Hand out a new name beside `path`: what is written there takes its place at the end.

    Where that fails, the part is deleted and `path` is as it was: RunError for the system's
    reasons, and any other error as it is.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}.part")
    with writing(path):
        try:
            yield part
            part.replace(path)
        finally:
            with suppress(OSError):  # its folder may be none
                part.unlink(missing_ok=True)
        sync_folder(path.parent)


def refuse_unwritable(folder: Path, what: Path | str) -> None:
    """See whether files could be written in a folder, which may be still to be made.

    It is tried with a file without a name: permissions do not tell of file systems that are
    read-only, or like `/proc`. Nothing is left behind.

    Raises:
        RunError: They cannot, so that `what` cannot be written.
    """
    with writing(what):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise RunError(f"{what} cannot be written: {there} is a file")
        TemporaryFile(dir=there).close()


def make_folder(folder: Path) -> Path:
    """Make a folder, and those around it; RunError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(describe_refusal(folder, error, "made")) from error
    return folder


def no_follow(name: str, flags: int) -> int:
    """Open a file but not through a link: an `opener` for `open`."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def writing(what: Path | str) -> Iterator[None]:
    """Turn the system's refusal to write `what` into a RunError of one sentence."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        raise RunError(describe_refusal(what, error)) from error


def describe_refusal(what: Path | str, error: OSError, verb: str = "written") -> str:
    """Say why `what` cannot be written, and what to do."""
    if error.errno in FULL:
        return (
            f"no space is left on the disk that holds {what}; free some and give the same command "
            f"again"
        )
    return f"{what} cannot be {verb}: {error.strerror or error}"


@contextmanager
def signals_held() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM wait for a few steps that belong together."""
    if threading.current_thread() is not threading.main_thread():  # they never end another
        yield
        return
    came: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in stops]
    try:
        yield
    finally:
        for stop, handler in zip(stops, before, strict=True):
            signal.signal(stop, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def refuse_link(path: Path) -> None:
    """Refuse a link where a command keeps a file or folder of its own: it may lead anywhere."""
    if path.is_symlink():
        raise RunError(
            f"{path} is a link, which may lead out of its folder; put what it leads to in its "
            f"place, or name another folder with --out"
        )
