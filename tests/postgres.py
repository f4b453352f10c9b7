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

    @property
    def address(self) -> str:
        """What `--storage` takes."""
        return f"postgresql+psycopg://{USER}@/postgres?host={self.folder}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        quick = "-c fsync=off -c max_connections=400"  # tests kill it no harder than pg_ctl does
        self._ctl("start", "-l", str(self.folder / "log"), "-o", f"-k {self.folder} -h '' {quick}")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._ctl("stop", "-m", "immediate")

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
def postgres() -> Iterator[Server]:
    """Run a server while the context is open; skip the test where PostgreSQL is not installed."""
    initdb = _program("initdb")
    if initdb is None:
        pytest.skip(MISSING)
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'tokensearch[postgres]'")
    folder = Path(tempfile.mkdtemp(prefix="tokensearch-pg-"))  # sockets have short names
    server = Server(folder)
    if (user := _ordinary_user()) is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        folder.chmod(0o755)
    try:
        server.run([initdb, "-D", str(folder / "data"), "-U", USER, "--auth=trust", "--no-sync"])
        server.start()
        yield server
    finally:
        with suppress(AssertionError):
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
