"""A PostgreSQL server of a test's own, run as an ordinary user in a folder that is deleted."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

USER = "tester"
MISSING = "PostgreSQL is not installed: apt-get install postgresql, or put initdb on the PATH"


def _program(name: str) -> str | None:
    """Return where a program of PostgreSQL is: on the PATH, or where Debian puts it."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


def _ordinary_user() -> str | None:
    """Return who may run the server: root may not, so it is handed to `nobody`."""
    return "nobody" if os.geteuid() == 0 else None


@dataclass(frozen=True)
class Server:
    """A server under way."""

    folder: Path
    small: bool = False  # whether its data has a small file system of its own

    @property
    def address(self) -> str:
        """What `--storage` takes."""
        return f"postgresql+psycopg://{USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        quick = "-c fsync=off -c max_connections=400"  # tests kill it no harder than pg_ctl does
        if self.small:
            quick += " -c max_wal_size=32MB -c min_wal_size=32MB"
        self._ctl("start", "-l", str(self.folder / "log"), "-o", f"-k {self.folder} -h '' {quick}")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._ctl("stop", "-m", "immediate")

    def restart(self) -> None:
        """Start it whether it is there or not."""
        with suppress(AssertionError):
            self.stop()
        self.start()

    def fill_disk(self) -> None:
        """Leave no byte free beside the data."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))

    def empty_disk(self) -> None:
        """Free what `fill_disk` took."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "data" / "ballast"

    def _ctl(self, *words: str) -> None:
        command = [_program("pg_ctl"), "-w", "-D", str(self.folder / "data"), *words]
        self.run(command)

    def run(self, command: list[str | None]) -> None:
        """Run a program of PostgreSQL as the server's user."""
        done = subprocess.run(
            command,
            user=_ordinary_user(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def postgres(*, disk_mb: int | None = None) -> Iterator[Server]:
    """Run a server while the context is open; skip the test where PostgreSQL is not installed.

    disk_mb  size of a file system for its data, where one may be mounted
    """
    initdb = _program("initdb")
    if initdb is None:
        pytest.skip(MISSING)
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'tokensearch[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="tokensearch-pg-"))  # sockets have short names
    data = folder / "data"
    data.mkdir()
    server = Server(folder, small=disk_mb is not None and _mount(data, disk_mb))
    if (user := _ordinary_user()) is not None:
        for path in (folder, data):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
        folder.chmod(0o755)
    try:
        server.run([initdb, "-D", str(data), "-U", USER, "--auth=trust", "--no-sync"])
        server.start()
        yield server
    finally:
        with suppress(AssertionError):
            server.stop()
        if server.small:
            subprocess.run(["umount", "--lazy", data], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def _mount(folder: Path, size_mb: int) -> bool:
    """Give a folder a file system in memory; whether that may be done here."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "tmpfs", str(folder)]
    program = shutil.which("mount")
    return program is not None and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode
