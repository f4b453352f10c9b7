import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.search.tiny import session
from tokensearch.errors import RunError
from tokensearch.policy import load, load_set
from tokensearch.run_folder import RunFolder
from tokensearch.search.proposals import Proposals

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    session(folder, trials=6).run()
    return RunFolder(folder)


def test_a_run_leaves_the_promised_files(finished: RunFolder) -> None:
    for path in (finished.run, finished.study, finished.trials, finished.front, finished.policy):
        assert path.is_file(), path
    assert (finished.profiles / "baseline.json").is_file()
    assert list((finished.profiles / "tensorboard").glob("*.pt.trace.json*"))


def test_the_answer_to_a_target_that_the_unreduced_model_meets_is_the_unreduced_model(
    finished: RunFolder,
) -> None:
    assert not load(finished.policy).reduces
    document = finished.read_run()
    assert document is not None
    assert (document["result"]["outcome"], document["result"]["exit_code"]) == ("unreduced", 0)


def test_the_front_holds_the_unreduced_model_and_is_fastest_first(finished: RunFolder) -> None:
    policies = load_set(finished.front).policies
    ratios = [policy.evidence[0].extra["comparison"]["ratio"] for policy in policies]

    assert any(not policy.reduces for policy in policies)
    assert ratios == sorted(ratios)
    assert len(list(finished.policies.glob("*.json"))) == len(policies)


def test_evidence_quotes_the_report_split(finished: RunFolder) -> None:
    evidence = load(finished.policy).evidence[0]

    assert evidence.accuracy["split"] == "report"
    assert evidence.accuracy["kind"] == "agreement"
    assert evidence.accuracy["images"] == 50
    assert evidence.confirmed


def test_no_schedule_is_evaluated_twice(finished: RunFolder) -> None:
    hashes = Counter(trial["schedule_hash"] for trial in finished.read_trials())

    assert set(hashes.values()) == {1}


def test_the_same_command_on_a_finished_run_changes_nothing(finished: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*.json*") if p != finished.run}

    again = session(finished.path, trials=6)
    document = again.run()

    assert document["result"] == finished.read_run()["result"]  # type: ignore[index]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again.listener.cautions == [f"{finished.path} is finished; --trials searches on"]


def test_a_folder_of_another_run_is_refused(finished: RunFolder) -> None:
    with pytest.raises(RunError) as raised:
        session(finished.path, trials=6, target="0.5x").run()

    assert str(raised.value) == (
        f"run folder {finished.path} holds a run with settings.target '1000s', "
        "this one has '0.5x'; name another folder with --out"
    )


def test_more_trials_go_on_where_the_run_ended(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    session(folder.path, trials=4).run()
    first = folder.read_trials()

    session(folder.path, trials=7).run()

    assert folder.read_trials()[:4] == first
    assert [trial["number"] for trial in folder.read_trials()] == list(range(7))


KILLED = """
import sys
from pathlib import Path
from tests.search.tiny import session
session(Path(sys.argv[1]), trials=12).run()
"""


def test_a_killed_run_goes_on_with_no_trial_lost_or_repeated(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", KILLED, str(folder.path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(_lines(folder)) < 5:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = _lines(folder)

    session(folder.path, trials=12).run()

    assert 5 <= len(before) < 12
    trials = folder.read_trials()
    assert [json.dumps(trial) for trial in trials[: len(before)]] == before
    assert [trial["number"] for trial in trials] == list(range(12))
    assert len({trial["schedule_hash"] for trial in trials}) == 12


def _lines(folder: RunFolder) -> list[str]:
    text = folder.trials.read_text() if folder.trials.exists() else ""
    return text.split("\n")[:-1]  # whole lines


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append_trial({"number": 0})
    with folder.trials.open("a") as file:
        file.write('{"number": 1, "orig')

    folder.mend_trials()

    assert folder.read_trials() == ({"number": 0},)


def test_a_trial_that_was_written_but_not_told_is_told_on_resuming(finished: RunFolder) -> None:
    asked = session(finished.path, trials=6)
    spec = load(finished.policy).model
    proposals = Proposals(finished, asked.space, spec, sampler="tpe", seed=0)
    stale = proposals.ask(line=2)
    lost = proposals.ask(line=99)

    proposals.reconcile(finished.read_trials())

    states = {trial.number: trial.state.name for trial in proposals.study.trials}
    assert states[stale.trial.number] == "COMPLETE"
    assert states[lost.trial.number] == "FAIL"
    assert proposals.ask(line=6).trial.params == lost.trial.params
