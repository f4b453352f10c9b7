"""What all listeners beside the terminal do: pass everything on, and follow the list of trials.

Trials are read from the run folder's own list, so that those of earlier processes are heard of,
too. That of a shared search is written at its end.
"""

from contextlib import suppress
from pathlib import Path

from tokensearch.documents import parse_object
from tokensearch.errors import RunError
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Trial, from_json
from tokensearch.records.run_folder import RunFolder


class Relay:
    """Tells another listener all that it hears, and `heard_of` each new trial."""

    def __init__(self, listener: ProgressListener, folder: RunFolder) -> None:
        self._listener, self._folder = listener, folder
        self._before = self._state()  # of the list of an earlier process, which may be refused
        self._read = 0  # bytes of the list that were looked at

    def stage(self, title: str, *, unit: str = "") -> None:
        """Begin a new stage."""
        self._listener.stage(title, unit=unit)

    def note(self, text: str) -> None:
        """Say what was found on the way."""
        self._listener.note(text)

    def caution(self, text: str) -> None:
        """Say what the user should know."""
        self._listener.caution(text)

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        """Say how far it is, and which trials have ended since."""
        self._listener.progress(done=done, total=total, seconds_left=seconds_left, text=text)
        self.follow()

    def follow(self) -> None:
        """Tell of the trials that were not told of yet, once one was added."""
        if self._state() in {self._before, None}:
            return
        with Path(self._folder.trials).open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line that is still written waits
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(RunError):  # the search itself says what is wrong with its list
                self.heard_of(from_json(Trial, parse_object(line, error=RunError)))

    def _state(self) -> tuple[int, int] | None:
        """Which file the list is, and its size; None where there is none."""
        path = Path(self._folder.trials)
        if not path.exists():
            return None
        status = path.stat()
        return status.st_ino, status.st_size

    def heard_of(self, trial: Trial) -> None:
        """Do something with a trial."""
        raise NotImplementedError

    def close(self) -> None:
        """Tell of what is left."""
        self.follow()
