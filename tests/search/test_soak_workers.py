"""Eight workers, of which some are killed or stopped at random while the database is restarted."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.postgres import Server, postgres
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.workers.lease import STALE_S
from tokensearch.search.workers.publish import Publication
from tokensearch.search.workers.storage import shared_storage

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

WORKERS, TRIALS, MINUTES = 8, 60, 12.0
MODEL = ("--model", "tests.search.tiny:model")


class Fleet:
    """Workers under way; one that is killed is replaced."""

    def __init__(self, server: Server, run: Path) -> None:
        self._environment = {
            **os.environ,
            "TOKENSEARCH_STORAGE": server.address,
            "OMP_NUM_THREADS": "1",
        }
        self._log = (run.parent / "log.txt").open("wb")
        self.run = self._start(
            *("run", *MODEL, "--study", "soak", "--trials", str(TRIALS), "--images", "40,30,50"),
            *("--latency-target", "1000ms", "--confirm-seconds", "0.1", "--out", str(run)),
        )
        self.workers = [self._join() for _ in range(WORKERS - 1)]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tokensearch.cli", *words]
        return subprocess.Popen(
            command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT
        )

    def _join(self) -> subprocess.Popen[bytes]:
        return self._start("worker", *MODEL, "--study", "soak", "--role", "accuracy")

    def kill(self, dice: random.Random) -> None:
        """Kill one as the system does when memory runs out."""
        number = dice.randrange(len(self.workers))
        self.workers[number].kill()
        self.workers[number].wait()
        self.workers[number] = self._join()

    def stop_for_long(self, dice: random.Random) -> None:
        """Stop one for so long that the others take it for dead."""
        process = dice.choice(self.workers)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGSTOP)
            time.sleep(STALE_S + 10)
            process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End what is still there."""
        for process in (self.run, *self.workers):
            process.kill()
            process.wait()
        self._log.close()


def disturb(
    fleet: Fleet, server: Server, finished: dict[str, Trial], found: Publication
) -> Counter:
    """Do harm until the run has ended; note every trial that was ever seen to be finished."""
    dice, done, end = random.Random(0), Counter[str](), time.monotonic() + 60 * MINUTES
    while fleet.run.poll() is None and time.monotonic() < end:
        time.sleep(dice.uniform(2, 6))
        if not found.exists or not found.ready:
            continue
        finished.update({repr(trial): trial for trial in found.trials()})
        kind = dice.choices(("kill", "stop", "restart"), weights=(6, 1, 2))[0]
        done[kind] += 1
        if kind == "kill":
            fleet.kill(dice)
        elif kind == "stop":
            fleet.stop_for_long(dice)
        else:
            server.stop()
            time.sleep(dice.uniform(0, 5))
            server.start()
    return done


def test_no_finished_trial_is_lost_or_done_twice_whatever_is_killed(tmp_path: Path) -> None:
    with postgres() as server, shared_storage(server.address) as storage:
        found, finished = Publication(storage.studies, "soak"), dict[str, Trial]()
        fleet = Fleet(server, tmp_path / "run")
        try:
            done = disturb(fleet, server, finished, found)
            assert fleet.run.poll() in (0, 3, 4), (tmp_path / "log.txt").read_text()[-5000:]
        finally:
            fleet.end()
        trials = found.trials()
        anew = RunFolder(tmp_path / "anew")
        found.write_folder(anew)

    assert done["kill"]
    assert set(finished) <= {repr(trial) for trial in trials}
    complete = Counter(trial.schedule_hash for trial in trials if trial.state == "complete")
    assert set(complete.values()) == {1}
    assert TRIALS <= len(trials) < TRIALS + WORKERS
    kept = RunFolder(tmp_path / "run")
    assert anew.read_trials() == kept.read_trials()
    assert (anew.path / "front.json").read_text() == (kept.path / "front.json").read_text()
