"""One search by eight processes, of which some are killed or stopped while its database fails.

    python -m tests.bench soak [--trials N] [--minutes M] [--seed N] [--json] [--store NAME]

The processes are the commands `run` and `worker` themselves, forked from one that has loaded all
they need: a worker that is killed is replaced within a second. The model is tiny, and policies are
as fast as their multiply-accumulates promise, so that two cores get through it; predictions, the
database and all faults are real. A full disk is a small file system of the database's own, filled
to its last byte; making that takes root, and elsewhere there is none.

Afterwards the records are checked, and the front is computed anew from the trials by one process.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tests.bench.results import store
from tests.postgres import Server, postgres
from tests.search.clockless import no_clock_in_runs
from tokensearch.cli.main import main as run_command
from tokensearch.policy import load_set
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.workers.lease import STALE_S
from tokensearch.search.workers.publish import Publication
from tokensearch.search.workers.storage import shared_storage

WORKERS, TRIALS, MINUTES = 8, 120, 12.0
MODEL = ("--model", "tests.search.tiny:model")
STUDY = "soak"
DISK_MB = 192  # of the database's file system; half of it is there before a trial is made
FAULTS = {"kill": 12, "kill run": 1, "stop": 2, "restart": 3, "full disk": 1}  # weights
ENDED = (0, 3, 4)  # exit codes of a run that came to its end: the last two are verdicts


@dataclass(frozen=True, slots=True)
class Soak:
    """What a soak came to."""

    workers: int
    trials: int  # finished
    asked: int
    seconds: float
    faults: dict[str, int]  # how many of each kind
    exit_code: int | None  # of the run; None: it did not end in time
    exits: dict[str, int]  # exit codes of workers that nobody had killed, counted
    lost: int  # trials that were seen to be finished, and were not there at the end
    repeated: int  # schedules that were completed more than once
    same_folder: bool  # the run's folder at its end has all trials of the study, and no other
    same_front: bool  # the front is what one process computes from the trials alone
    front: int  # policies on it

    @property
    def holds(self) -> bool:
        """Whether everything came out as promised."""
        whole = self.asked <= self.trials < self.asked + self.workers
        unharmed = not (self.lost or self.repeated) and self.same_folder and self.same_front
        return whole and unharmed and self.exit_code in ENDED


def main(arguments: list[str]) -> None:
    """Print what a soak came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench soak", description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--store", metavar="NAME")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tokensearch-soak-") as folder:
        soaked = soak(
            Path(folder), trials=options.trials, minutes=options.minutes, seed=options.seed
        )
        if not soaked.holds:
            sys.stderr.write((Path(folder) / "log.txt").read_text()[-5000:])
    if options.store:
        store(options.store, asdict(soaked))
    print(json.dumps(asdict(soaked), indent=None if options.json else 1))


def soak(folder: Path, *, trials: int = TRIALS, minutes: float = MINUTES, seed: int = 0) -> Soak:
    """Search while doing harm, and say what became of the trials."""
    began = time.monotonic()
    with postgres(disk_mb=DISK_MB) as server, shared_storage(server.address) as storage:
        publication = Publication(storage.studies, STUDY)
        fleet = Fleet(server, folder, trials)
        harm = Harm(fleet, server, publication, random.Random(seed))
        try:
            harm.do(until=began + 60 * minutes)
        finally:
            fleet.end()
            harm.repair()
        finished = publication.trials()
    kept = RunFolder(folder / "run")
    complete = Counter(trial.schedule_hash for trial in finished if trial.state == "complete")
    ended = fleet.exit_code in ENDED
    return Soak(
        workers=WORKERS,
        trials=len(finished),
        asked=trials,
        seconds=round(time.monotonic() - began, 1),
        faults=dict(sorted(harm.done.items())),
        exit_code=fleet.exit_code,
        exits=dict(sorted(fleet.exits.items())),
        lost=len(harm.seen - set(map(repr, finished))),
        repeated=sum(times > 1 for times in complete.values()),
        same_folder=set(map(_unnumbered, kept.read_trials())) == set(map(_unnumbered, finished)),
        same_front=ended and front_of(kept) == front_of(fleet.search_alone(kept, folder / "alone")),
        front=len(front_of(kept)) if ended else 0,
    )


def _unnumbered(trial: Trial) -> str:
    return repr(replace(trial, number=0))


def front_of(folder: RunFolder) -> list[tuple[object, ...]]:
    """Return the schedules of a front with the figures that put them there."""
    return [
        (policy.schedule_hash, evidence.extra["comparison"], evidence.extra["select"])
        for policy in load_set(folder.front).policies
        for evidence in policy.evidence[:1]
    ]


class Fleet:
    """A run and its workers under way; one that is killed is replaced."""

    def __init__(self, server: Server, folder: Path, trials: int) -> None:
        self.log, self._trials = folder / "log.txt", trials
        self._environment = {
            "TOKENSEARCH_STORAGE": server.address,
            "TOKENSEARCH_CACHE": str(folder / "cache"),
            "TMPDIR": str(folder),  # the lock of the device is this fleet's own
        }
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._folder = folder / "run"
        self.exits = Counter[str]()
        self.run = self._start_run()
        self.workers = [self._join() for _ in range(WORKERS - 1)]

    def _start(self, *words: str, shared: bool = True) -> ForkServerProcess:
        environment = {**self._environment, **({} if shared else {"TOKENSEARCH_STORAGE": ""})}
        process = self._context.Process(target=take, args=(words, environment, self.log))
        process.start()
        return process

    def _run_words(self, folder: Path) -> tuple[str, ...]:
        budget = ("--trials", str(self._trials), "--images", "40,30,50", "--confirm-seconds", "0.1")
        return "run", *MODEL, *budget, "--latency-target", "0.6x", "--out", str(folder)

    def _start_run(self) -> ForkServerProcess:
        return self._start(*self._run_words(self._folder), "--study", STUDY)

    def _join(self) -> ForkServerProcess:
        return self._start("worker", *MODEL, "--study", STUDY, "--role", "accuracy")

    def kill_worker(self, number: int) -> None:
        """Kill one as the system does when memory runs out."""
        if self.workers[number].is_alive():
            kill(self.workers[number])
        self.workers[number] = self._join()

    def kill_run(self) -> None:
        """Kill the process that has the budget, and give the same command again."""
        kill(self.run)
        self.run = self._start_run()

    def replace_ended(self) -> None:
        """Start anew what gave up by itself: the storage was away for too long."""
        for number, process in enumerate(self.workers):
            if not process.is_alive() and process.exitcode:
                self.exits[str(process.exitcode)] += 1
                self.workers[number] = self._join()
        if not self.run.is_alive() and self.run.exitcode not in ENDED:
            self.exits[f"run {self.run.exitcode}"] += 1
            self.run = self._start_run()

    @property
    def has_ended(self) -> bool:
        """Whether the run came to its end."""
        return not self.run.is_alive() and self.run.exitcode in ENDED

    @property
    def exit_code(self) -> int | None:
        """The run's, once it has ended."""
        return self.run.exitcode if self.has_ended else None

    def end(self) -> None:
        """End what is still there."""
        if self.has_ended:
            for process in self.workers:
                process.join(timeout=STALE_S)
        for process in (self.run, *self.workers):
            kill(process)

    def search_alone(self, kept: RunFolder, folder: Path) -> RunFolder:
        """Have one process go on from the trials of a run, without its result or its study."""
        alone = RunFolder(folder)
        alone.create()
        alone.write_trials(kept.read_trials())
        alone.write_run(replace(kept.require_run(), result=None))
        process = self._start(*self._run_words(folder), shared=False)
        process.join()
        assert process.exitcode in ENDED, self.log.read_text()[-5000:]
        return alone


class Harm:
    """What goes wrong, at random, until the run has ended."""

    def __init__(
        self, fleet: Fleet, server: Server, publication: Publication, dice: random.Random
    ) -> None:
        self._fleet, self._server, self._publication = fleet, server, publication
        self._dice = dice
        self._stopped: list[tuple[float, ForkServerProcess]] = []  # until when
        self._kinds: dict[str, Callable[[], None]] = {
            "kill": lambda: fleet.kill_worker(dice.randrange(len(fleet.workers))),
            "kill run": fleet.kill_run,
            "stop": self._stop,
            "restart": self._restart,
        }
        if server.small:
            self._kinds["full disk"] = self._fill_disk
        self.done = Counter[str]()
        self.seen: set[str] = set()  # every trial that was once seen to be finished

    def do(self, *, until: float) -> None:
        """Do harm, and note which trials were seen to be finished."""
        weights = [FAULTS[kind] for kind in self._kinds]
        while not self._fleet.has_ended and time.monotonic() < until:
            time.sleep(self._dice.uniform(2, 6))
            self._wake()
            self._fleet.replace_ended()
            if not self._publication.ready:
                continue
            self.seen.update(map(repr, self._publication.trials()))
            if self._fleet.has_ended:
                return
            (kind,) = self._dice.choices([*self._kinds], weights=weights)
            self._kinds[kind]()
            self.done[kind] += 1

    def repair(self) -> None:
        """Leave a database that answers."""
        self._server.empty_disk()
        self._server.restart()

    def _wake(self) -> None:
        now = time.monotonic()
        for until, process in self._stopped:
            if until <= now:
                _signal(process, signal.SIGCONT)
        self._stopped = [each for each in self._stopped if each[0] > now]

    def _stop(self) -> None:
        """Stop one for so long that the others take it for dead."""
        process = self._dice.choice(self._fleet.workers)
        _signal(process, signal.SIGSTOP)
        self._stopped.append((time.monotonic() + STALE_S + 10, process))

    def _restart(self) -> None:
        self._server.stop()
        time.sleep(self._dice.uniform(0, 5))
        self._server.start()

    def _fill_disk(self) -> None:
        self._server.fill_disk()
        time.sleep(self._dice.uniform(3, 10))
        self._server.empty_disk()
        self._server.restart()  # it may have given up


def take(words: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
    """Be the command, in a process of its own."""
    os.environ.update({name: value for name, value in environment.items() if value})
    for name, value in environment.items():
        if not value:
            os.environ.pop(name, None)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["tokensearch", *words]
    tempfile.tempdir = environment["TMPDIR"]
    with no_clock_in_runs():
        run_command()


def kill(process: ForkServerProcess) -> None:
    """Kill a process, and wait until it is gone."""
    process.kill()
    process.join()


def _signal(process: ForkServerProcess, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)
