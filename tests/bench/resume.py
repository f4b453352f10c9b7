"""What a killed run goes on from, and how long a long one takes to be gone on with.

    python -m tests.bench resume [--parts kills long] [--kills N] [--trials N] [--seed N]
        [--json] [--store NAME]

kills  runs of a tiny model, each killed at random instants until it comes to its end: no trial may
       be lost or made twice. Policies are as fast as their multiply-accumulates promise.
long   seconds until a search knows 10,000 trials again, from its study and without it; what it
       then proposes is not counted in
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from itertools import count
from multiprocessing import get_context
from pathlib import Path

from tests.bench.results import store
from tests.search.clockless import no_clock_in_runs
from tests.search.test_study import MODEL, estimated
from tests.search.tiny import promised, session
from tests.short import short_profiles
from tokensearch.costs.forecast import Forecast
from tokensearch.policy import Policy, Prune, mac_share
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.time_plan import TimePlan

KILLS, LONG, RUN_TRIALS, TARGET = 50, 10_000, 16, "0.6x"
TIMED_EVERY, RACED_EVERY = 10, 2  # of the trials of a long run


@dataclass(frozen=True, slots=True)
class Killed:
    """What became of runs that were killed."""

    kills: int
    runs: int
    trials: int  # of all runs
    lost: int  # trials that were written before a kill, and were not there at the end
    repeated: int  # schedules that a run completed more than once
    unended: int  # runs with other than the trials that they were asked for


@dataclass(frozen=True, slots=True)
class Resumed:
    """How long a search took to know its trials again."""

    trials: int
    study: str  # "kept" or "lost"
    seconds: float
    processor_seconds: float  # the same where nobody else wants the processor


def main(arguments: list[str]) -> None:
    """Print what each part came to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench resume", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("kills", "long"), default=("kills", "long"))
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--trials", type=int, default=LONG)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--store", metavar="NAME")
    options = parser.parse_args(arguments)
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="tokensearch-resume-") as folder:
        if "kills" in options.parts:
            results["kills"] = asdict(kill_runs(Path(folder), options.kills, seed=options.seed))
        if "long" in options.parts:
            results["long"] = [asdict(each) for each in resume_long(Path(folder), options.trials)]
    if options.store:
        store(options.store, results)
    print(json.dumps(results, indent=None if options.json else 1))


def kill_runs(folder: Path, kills: int, *, seed: int) -> Killed:
    """Kill runs at random instants of the time that one takes, until all kills are made."""
    context, dice = get_context("forkserver"), random.Random(seed)
    context.set_forkserver_preload([__name__])
    made, lost, repeated, unended, trials, most_s = 0, 0, 0, 0, 0, 0.0
    for number in count():
        run, seen, before = RunFolder(folder / str(number)), list[str](), made
        while True:
            process, began = context.Process(target=run_to_end, args=(run.path,)), time.monotonic()
            process.start()
            process.join(None if number == 0 or made == kills else dice.uniform(0, most_s))
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            made += 1
            print(f"kill {made} of {kills}, run {number}", file=sys.stderr, flush=True)
            now = read_lines(run)
            lost += sum(line not in now for line in seen)
            seen = now
        if made == before:  # undisturbed: how long one takes, on a machine as busy as now
            most_s = time.monotonic() - began
        if number == 0:
            continue
        ended = read_lines(run)
        lost += sum(line not in ended for line in seen)
        schedules = [trial.schedule_hash for trial in run.read_trials()]
        repeated += len(schedules) - len(set(schedules))
        unended += len(schedules) != RUN_TRIALS
        trials += len(schedules)
        if made == kills:
            return Killed(made, number, trials, lost, repeated, unended)
    raise AssertionError  # count() does not end


def run_to_end(folder: Path) -> None:
    """Search in a process of its own, from where the folder stands."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ["TOKENSEARCH_CACHE"] = str(folder.parent / "cache")
    with no_clock_in_runs(), short_profiles():
        session(folder, trials=RUN_TRIALS, target=TARGET).run()


def read_lines(folder: RunFolder) -> list[str]:
    """Return the whole lines of trials.jsonl."""
    return folder.trials.read_text().split("\n")[:-1] if folder.trials.exists() else []


def resume_long(folder: Path, trials: int) -> list[Resumed]:
    """Go on with a run of many trials, whose study is lost and then kept."""
    run = RunFolder(folder / "long")
    run.create()
    run.write_trials(make_trials(trials))
    return [Resumed(trials, study, *_resume(run, trials)) for study in ("lost", "kept")]


def _resume(run: RunFolder, trials: int) -> tuple[float, float]:
    """Return the seconds until a search knows the trials of a folder."""
    with no_clock_in_runs():
        again = session(run.path, trials=trials + 1, target=TARGET)
        evaluator, began, worked = again.evaluator(), time.monotonic(), time.process_time()
        search = again._begun(evaluator, TimePlan(None), Forecast(mac_share, 0.01))
        seconds = time.monotonic() - began, time.process_time() - worked
    assert len(search.trials) == trials
    return round(seconds[0], 1), round(seconds[1], 1)


def draw_policy(dice: random.Random) -> Policy:
    """Return some prunes; the space of searches spells a part of them alone."""
    count = dice.randint(1, MODEL.blocks)
    blocks = sorted(dice.sample(range(MODEL.blocks), count))
    keeps = sorted(dice.sample(range(1, MODEL.patch_tokens), count), reverse=True)
    return Policy(MODEL, tuple(Prune(*step) for step in zip(blocks, keeps, strict=True)))


def make_trials(count: int) -> list[Trial]:
    """Return trials of as many schedules, drawn at random: some timed, half of them raced."""
    like, dice, schedules = estimated()[3].trial, random.Random(0), dict[str, Trial]()
    while len(schedules) < count:
        policy = draw_policy(dice) if schedules else Policy(MODEL)
        number, ratio = len(schedules), mac_share(policy)
        if policy.schedule_hash in schedules:
            continue
        raced = number % RACED_EVERY == 1
        schedules[policy.schedule_hash] = replace(
            like,
            number=number,
            origin="sampler" if policy.reduces else "none",
            schedule_hash=policy.schedule_hash,
            state="raced" if raced else "complete",
            predicted=ratio,
            comparison=promised(ratio) if number % TIMED_EVERY == 0 else None,
            accuracy=replace(like.accuracy, kl=0.01 * number / count),
            policy=policy_to_json(policy),
        )
    return list(schedules.values())
