"""`run --tensorboard DIR`: every trial of a search as curves, while it goes on."""

from pathlib import Path
from typing import Any

from tokensearch.cli.relay import Relay
from tokensearch.files import make_folder
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder


class SearchBoard(Relay):
    """Draws each new trial for TensorBoard."""

    def __init__(self, listener: ProgressListener, folder: RunFolder, directory: Path) -> None:
        """Open the board; RunError where its folder cannot be made."""
        from torch.utils.tensorboard import SummaryWriter

        super().__init__(listener, folder)
        self._writer: Any = SummaryWriter(str(make_folder(directory)))

    def follow(self) -> None:
        """Draw the trials that were not drawn yet."""
        super().follow()
        self._writer.flush()

    def heard_of(self, trial: Trial) -> None:
        """Draw what is known of a trial: its latency as predicted where it was not timed."""
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
        super().close()
        self._writer.close()
