"""What an earlier process left in a run folder, and whether this one may go on with it."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tokensearch.errors import RunError
from tokensearch.files import no_follow
from tokensearch.records import Trial, trial_from_json
from tokensearch.redaction import redact
from tokensearch.run_folder import RunFolder


@contextmanager
def alone(folder: RunFolder) -> Iterator[None]:
    """Hold the folder against other processes; a killed one lets go of it."""
    with open(folder.lock, "ab", opener=no_follow) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"run folder {folder.path} is in use by another process") from error
        yield


def read_trials(folder: RunFolder) -> tuple[Trial, ...]:
    """Return the trials of earlier processes, a torn last line cut off; RunError if damaged."""
    folder.mend_trials()
    try:
        return tuple(trial_from_json(line) for line in folder.read_trials())
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.trials} holds something else than trials: {error}") from error


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse to go on in the folder of another run: its figures would not belong together."""
    for part in ("settings", "model", "cell", "data"):
        written = json.loads(json.dumps(redact(now[part])))
        for name in written:
            if not isinstance(before.get(part), dict) or name not in before[part]:
                raise RunError(f"{folder.run} lacks {part}.{name}")
            if before[part][name] != written[name]:
                raise RunError(
                    f"run folder {folder.path} holds a run with {part}.{name} "
                    f"{before[part][name]!r:.80}, this one has {written[name]!r:.80}; "
                    f"name another folder with --out"
                )
