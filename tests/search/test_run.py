import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.bench.resume import kill_runs
from tests.report.fixtures import trials
from tests.search.tiny import by_macs, session
from tokensearch.errors import RunError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import load, load_set
from tokensearch.records.checks import run_schema
from tokensearch.records.measurements import to_json
from tokensearch.records.run_folder import WAYS_ON, RunFolder

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    """What is tested here is what becomes of timings, so none is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyEvaluator, "time", by_macs)
        yield


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose target takes reducing."""
    folder = tmp_path_factory.mktemp("runs") / "reduced"
    session(folder, trials=10, target="0.6x").run()
    return RunFolder(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    session(folder, trials=6).run()
    return RunFolder(folder)


def test_a_run_leaves_the_promised_files(finished: RunFolder) -> None:
    for path in (finished.run, finished.study, finished.trials, finished.front, finished.policy):
        assert path.is_file(), path
    assert (finished.profiles / "baseline.json").is_file()
    assert list((finished.profiles / "tensorboard").rglob("*.pt.trace.json.gz"))


def test_the_answer_to_a_target_that_the_unreduced_model_meets_is_the_unreduced_model(
    finished: RunFolder,
) -> None:
    assert not load(finished.policy).reduces
    document = finished.read_run()
    assert document is not None
    assert (document.finished.outcome, document.finished.exit_code) == ("unreduced", 0)


def test_the_front_holds_the_unreduced_model_and_is_fastest_first(finished: RunFolder) -> None:
    policies = load_set(finished.front).policies
    ratios = [policy.evidence[0].extra["comparison"]["ratio"] for policy in policies]

    assert any(not policy.reduces for policy in policies)
    assert ratios == sorted(ratios)
    assert len(list(finished.policies.glob("*.json"))) == len(policies)


@pytest.mark.long
def test_the_answer_to_a_target_is_as_good_as_the_best_that_meets_it(reduced: RunFolder) -> None:
    document, answer = reduced.read_run(), load(reduced.policy)
    assert document is not None
    under = [one.select.kl for one in document.finished.finalists if one.comparison.ratio <= 0.6]

    assert (document.finished.outcome, document.finished.exit_code) == ("met", 0)
    assert answer.evidence[0].extra["comparison"]["ratio"] <= 0.6
    assert answer.evidence[0].extra["select"]["kl"] <= min(under) + 1e-3
    assert answer.schedule_hash == (document.finished.as_good or ())[0]


def test_the_answer_is_on_its_front_and_what_the_front_answers(reduced: RunFolder) -> None:
    answer, policies = load(reduced.policy), load_set(reduced.front)

    assert answer in policies.policies
    assert policies.best(latency="0.6x") == answer


def test_the_answer_says_where_it_comes_from(reduced: RunFolder) -> None:
    answer, document = load(reduced.policy), reduced.read_run()
    assert document is not None

    trial = reduced.read_trials()[answer.provenance["trial"]]
    assert trial.schedule_hash == answer.schedule_hash == document.finished.answer_hash
    assert answer.model.weights == document.model.weights


def test_run_json_is_what_is_read_from_it_and_meets_its_schema(reduced: RunFolder) -> None:
    written = json.loads(reduced.run.read_text())

    assert json.dumps(reduced.require_run().to_json(), indent=2) + "\n" == reduced.run.read_text()
    assert list(jsonschema.Draft202012Validator(run_schema()).iter_errors(written)) == []


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        with pytest.raises(RunError, match="is in use by another process"):
            session(tmp_path, trials=2).run()


def test_damaged_trials_are_refused(tmp_path: Path) -> None:
    session(tmp_path, trials=2).run()
    (tmp_path / "trials.jsonl").write_text('{"number": 0}\n')

    with pytest.raises(RunError, match="origin is missing") as raised:
        session(tmp_path, trials=3).run()

    assert str(raised.value).endswith(f" (in {tmp_path / 'trials.jsonl'}, line 1)")


def test_evidence_quotes_the_report_split(finished: RunFolder) -> None:
    evidence = load(finished.policy).evidence[0]

    assert evidence.accuracy["split"] == "report"
    assert evidence.accuracy["kind"] == "agreement"
    assert evidence.accuracy["images"] == 50
    assert evidence.confirmed


def test_no_schedule_is_evaluated_twice(finished: RunFolder) -> None:
    hashes = Counter(trial.schedule_hash for trial in finished.read_trials())

    assert set(hashes.values()) == {1}


def test_the_same_command_on_a_finished_run_changes_nothing(finished: RunFolder) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.path.rglob("*.json*") if p != finished.run}

    again = session(finished.path, trials=6)
    document = again.run()

    assert document.finished == finished.require_run().result
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again.listener.cautions == [
        f"{finished.path} is finished; raise --minutes or --trials to search on"
    ]


def test_a_folder_of_another_run_is_refused(finished: RunFolder) -> None:
    with pytest.raises(RunError) as raised:
        session(finished.path, trials=6, target="0.5x").run()

    assert str(raised.value) == (
        f"run folder {finished.path} holds a run with settings.target '1000s', "
        f"this one has '0.5x'; {WAYS_ON}"
    )


def test_more_trials_go_on_where_the_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
    folder = RunFolder(tmp_path / "run")
    session(folder.path, trials=4).run()
    first = folder.read_trials()

    session(folder.path, trials=7).run()

    assert folder.read_trials()[:4] == first
    assert [trial.number for trial in folder.read_trials()] == list(range(7))


KILLED = """
import sys
from pathlib import Path
import tests.conftest  # as many threads as here: a run goes on in the same cell only
from tests.search.tiny import by_macs, session
from tokensearch.evaluation.evaluator import PolicyEvaluator
PolicyEvaluator.time, PolicyEvaluator.profile = by_macs, lambda *_, **__: ()
session(Path(sys.argv[1]), trials=16, target="0.6x").run()
"""


# Among presets, among the rest.
@pytest.mark.long
@pytest.mark.parametrize("killed_after", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_a_killed_run_goes_on_with_no_trial_lost_or_repeated(
    tmp_path: Path, killed_after: int
) -> None:
    folder = RunFolder(tmp_path / "run")
    command = [sys.executable, "-c", KILLED, str(folder.path)]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and len(_lines(folder)) < killed_after:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = _lines(folder)

    subprocess.run(command, check=True, capture_output=True)

    assert killed_after <= len(before) < 16
    trials = folder.read_trials()
    assert [json.dumps(to_json(trial)) for trial in trials[: len(before)]] == before
    assert [trial.number for trial in trials] == list(range(16))
    assert len({trial.schedule_hash for trial in trials}) == 16
    assert [trial.origin for trial in trials].count("seed") >= 2


@pytest.mark.slow
def test_fifty_kills_at_random_instants_lose_and_repeat_nothing(tmp_path: Path) -> None:
    killed = kill_runs(tmp_path, 50, seed=0)

    assert (killed.kills, killed.lost, killed.repeated, killed.unended) == (50, 0, 0, 0)


def _lines(folder: RunFolder) -> list[str]:
    text = folder.trials.read_text() if folder.trials.exists() else ""
    return text.split("\n")[:-1]  # whole lines


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    folder, trial = RunFolder(tmp_path), trials()[0]
    folder.append_trial(trial)
    with folder.trials.open("a") as file:
        file.write('{"number": 1, "orig')

    folder.mend_trials()

    assert [one.number for one in folder.read_trials()] == [0]
