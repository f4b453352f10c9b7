"""`run --tensorboard DIR`: every trial of a search as curves, while it goes on.

Trials are read from the run folder's own list, so that the board has what earlier processes and
other workers have added, too.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from tokensearch.documents import parse_object
from tokensearch.errors import RunError
from tokensearch.files import make_folder
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Trial, from_json
from tokensearch.records.run_folder import RunFolder


class SearchBoard:
    """Tells another listener all that it hears, and TensorBoard of each new trial."""

    def __init__(self, listener: ProgressListener, folder: RunFolder, directory: Path) -> None:
        """Open the board; RunError where its folder cannot be made."""
        from torch.utils.tensorboard import SummaryWriter

        self._listener, self._folder = listener, folder
        self._writer: Any = SummaryWriter(str(make_folder(directory)))
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
        """Say how far it is, and draw the trials that have ended since."""
        self._listener.progress(done=done, total=total, seconds_left=seconds_left, text=text)
        self.draw()

    def draw(self) -> None:
        """Draw the trials that were not drawn yet."""
        if not self._folder.trials.exists():
            return
        with Path(self._folder.trials).open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # a line that is still written waits
        self._read += len(whole)
        for line in whole.splitlines():
            with suppress(RunError):  # the search itself says what is wrong with its list
                self._draw_trial(from_json(Trial, parse_object(line, error=RunError)))
        self._writer.flush()

    def _draw_trial(self, trial: Trial) -> None:
        """Draw what is known of a trial: on `search`, and as predicted where it was not timed."""
        figures = {
            "search/latency_of_baseline": trial.ratio,
            "search/right": trial.accuracy.share,
            "search/divergence": trial.accuracy.divergence,
            "search/seconds": trial.seconds,
        }
        for name, value in figures.items():
            self._writer.add_scalar(name, value, trial.number)

    def close(self) -> None:
        """Draw what is left."""
        self.draw()
        self._writer.close()
