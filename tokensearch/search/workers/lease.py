"""Signs of life: a worker renews its trial while it is at it, and others' stale trials are ended.

Optuna's own heartbeat works inside `Study.optimize` alone, and not behind its gRPC proxy. Here a
sign of life is a number in a trial's attributes that its worker keeps raising. Who watches counts,
by a clock of his own, for how long it stayed the same: hosts need no common time.
"""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

BEAT_S = 3.0
# A worker that shows no life for so long is dead, or stopped: what it had begun is another's.
STALE_S = 30.0
BEAT = "beat"  # user attribute of a running trial


class Lease:
    """The sign of life of one worker's trial, and a watch over those of others."""

    def __init__(
        self,
        storage: BaseStorage,
        running: Callable[[], Iterable[FrozenTrial]],
        take_over: Callable[[FrozenTrial], None],
    ) -> None:
        """Begin to show life.

        running    returns the trials that are under way, of all workers
        take_over  is called with each that is stale
        """
        self._storage, self._running, self._take_over = storage, running, take_over
        self._held: int | None = None
        self._ages = Ages()
        self._beats = 0
        self._ended = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._show_life, daemon=True, name="lease")
        self._thread.start()

    def hold(self, trial_id: int | None) -> None:
        """Show life for this trial from now on; None for no trial."""
        self._held = trial_id

    def end(self) -> None:
        """Show no more life."""
        self._ended.set()
        self._thread.join()

    def _show_life(self) -> None:
        try:
            while not self._ended.wait(BEAT_S):
                self._beat()
                self._end_stale()
        except Exception as error:  # noqa: BLE001  # raised in the main thread: see `failure`
            self.failure = error

    def _beat(self) -> None:
        held, self._beats = self._held, self._beats + 1
        if held is not None:
            with suppress(UpdateFinishedTrialError):  # told meanwhile, or taken over
                self._storage.set_trial_user_attr(held, BEAT, self._beats)

    def _end_stale(self) -> None:
        others = [trial for trial in self._running() if trial._trial_id != self._held]
        for trial in self._ages.look(others, time.monotonic()):
            self._take_over(trial)


class Ages:
    """For how long trials have shown no life, as one process sees it."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}  # beat and age of each trial
        self._looked: float | None = None

    def look(self, running: Iterable[FrozenTrial], now: float) -> list[FrozenTrial]:
        """Return those of the trials that are stale.

        now  seconds. Between two looks at most two beats count: a process that was stopped
             itself has seen nothing meanwhile.
        """
        elapsed = 0.0 if self._looked is None else min(now - self._looked, 2 * BEAT_S)
        self._looked, before, stale = now, self._seen, []
        self._seen = {}
        for trial in running:
            beat = int(trial.user_attrs.get(BEAT, 0))
            known, age = before.get(trial._trial_id, (beat, 0.0))
            age = age + elapsed if beat == known and trial._trial_id in before else 0.0
            self._seen[trial._trial_id] = beat, age
            if age >= STALE_S:
                stale.append(trial)
        return stale
