"""The verbs that answer from a finished run, and how `run` starts from a front."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.search.clockless import no_clock_in_runs, together
from tests.search.tiny import CONFIG, by_macs
from tokensearch.cli.main import app
from tokensearch.errors import PolicyError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import load, load_set, save_set
from tokensearch.records.measurements import Caution, Comparison
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.run.result import SEARCHED
from tokensearch.report.text import short

FACTORY = "tests.search.tiny:model"
OWN = ("--model", FACTORY)  # a factory that a file names is not imported

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def called(*args: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, args)))


def run(where: Path, config: Path, *more: str | Path) -> Result:
    """A search of seconds."""
    return called(
        "run", "--model", FACTORY, "--data-config", config, "--trials", "8",
        "--images", "24,20,20", "--batch-size", "2", "--out", where, *more,
    )  # fmt: skip


def ended(result: Result) -> dict[str, Any]:
    """What run.json holds, of the last event that `run --json` printed."""
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["run"]
    return document


def said(result: Result) -> str:
    """The error, which is one line."""
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return result.stderr.splitlines()[-1]


@pytest.fixture(scope="module", autouse=True)
def _no_clock() -> Iterator[None]:
    """What timings say is not tested here, so none is taken."""
    with no_clock_in_runs():
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, config: Path) -> RunFolder:
    """A finished run, whose target the baseline does not meet."""
    where = tmp_path_factory.mktemp("runs") / "tiny"
    result = run(where, config, "--latency-target", "0.9x", "--json")
    assert result.exit_code == 0, result.output
    assert ended(result)["result"]["outcome"] == "met"
    return RunFolder(where)


@pytest.fixture
def front(source: RunFolder, tmp_path: Path) -> Path:
    """A copy of the run's front."""
    return Path(shutil.copy(source.front, tmp_path / "front.json"))


def test_a_run_answers_another_target(source: RunFolder) -> None:
    result = called("retarget", source.path, *OWN, "--latency-target", "1000ms")

    assert result.exit_code == 0, result.output
    where = Path(f"{source.path}-retargeted") / "cpu-eager-batch2-1000ms"
    assert result.stdout.startswith("Target met without reducing anything: 1000ms for a pass of 2")
    assert "timing schedules of the run side by side\n" in result.stderr
    assert f"{source.path} holds no costs.json of this cell: what token counts" in result.stderr
    assert not load(where / "policy.json").reduces
    assert load_set(where / "front.json").policies
    assert called("report", where).exit_code == 0


def test_another_batch_is_another_cell_and_json_is_what_run_json_holds(
    source: RunFolder, tmp_path: Path
) -> None:
    where = tmp_path / "new"

    result = called(
        "retarget", source.path, *OWN, "--latency-target", "1us", "--batch-size", "3",
        "--out", where, "--json",
    )  # fmt: skip

    assert result.exit_code == 3, result.output
    document = json.loads(result.stdout)
    assert (document["cell"]["batch"], document["settings"]["batch"]) == (3, 3)
    assert document["result"]["outcome"] == "missed"
    assert json.loads((where / "run.json").read_text()) == document
    assert not (where / "policy.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--latency-target", "1x", "--device", "tpu"], "device 'tpu' is not on this machine"),
        (
            ["--latency-target", "1x", "--backend", "cudagraph", "--device", "cpu"],
            "backend cudagraph needs an NVIDIA GPU and runs on cpu",
        ),
    ],
)
def test_what_cannot_be_asked_of_a_run_is_one_sentence(
    source: RunFolder, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = called("retarget", source.path, *OWN, "--out", tmp_path / "new", *arguments)

    assert said(result).startswith(f"error: {message}")
    assert not (tmp_path / "new").exists()


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    result = called("retarget", tmp_path, "--latency-target", "1x")

    assert said(result) == f"error: {tmp_path} holds no run.json, so it is no run folder"


def test_the_folder_of_the_run_itself_is_refused(source: RunFolder) -> None:
    before = source.run.read_bytes()

    result = called("retarget", source.path, "--latency-target", "1x", "--out", source.path)

    assert said(result) == (
        f"error: {source.path} is the run itself; name another folder with --out"
    )
    assert source.run.read_bytes() == before


def test_a_place_without_out_that_cannot_be_written_is_refused_before_a_model_is_built(
    source: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.cli.commands.retarget._timed", None)
    shutil.copytree(source.path, tmp_path / "run")
    (tmp_path / "run-retargeted").write_text("in the way")

    result = called("retarget", tmp_path / "run", *OWN, "--latency-target", "1x")

    assert said(result).startswith(f"error: {tmp_path / 'run-retargeted'} cannot be written: ")


def test_a_front_is_timed_anew_beside_itself(front: Path) -> None:
    before = {policy.schedule_hash: policy for policy in load_set(front).policies}
    own, here = front.read_bytes(), front.with_name("front-here.json")

    result = called("calibrate", front, *OWN, "--batch-size", "3", "--seconds", "0.5")

    assert result.exit_code == 0, result.output
    assert "of baseline" in result.stdout
    assert result.stdout.endswith(f"front  {here}\n")
    assert front.read_bytes() == own
    after = load_set(here).policies
    assert {policy.schedule_hash for policy in after} == set(before)
    for policy in after:
        origin = policy.provenance["origin"]
        name = short(policy.schedule_hash) if origin in SEARCHED else origin
        assert (name if policy.reduces else "baseline") in result.stdout
    for policy in after:
        assert policy.evidence[1:] == before[policy.schedule_hash].evidence
        assert policy.evidence[0].cell["batch"] == 3


def test_a_front_can_go_elsewhere_and_json_says_what_was_timed(front: Path, tmp_path: Path) -> None:
    before, where = front.read_bytes(), tmp_path / "here" / "front.json"

    result = called("calibrate", front, *OWN, "--out", where, "--seconds", "0.5", "--json")

    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    ratios = [one["comparison"]["ratio"] for one in document["policies"]]
    assert ratios == sorted(ratios)
    assert len(ratios) > 1
    assert (document["front"], document["cell"]["batch"]) == (str(where), 2)
    assert len(load_set(where).policies) == len(ratios)
    assert front.read_bytes() == before


def test_a_front_is_timed_in_the_cell_of_its_own_evidence(front: Path) -> None:
    document = json.loads(front.read_text())
    for policy in document["policies"]:
        policy["evidence"][0]["cell"] |= {"batch": 5, "dtype": "bfloat16"}
    front.write_text(json.dumps(document))

    result = called("calibrate", front, *OWN, "--seconds", "0.5")

    assert result.exit_code == 0, result.output
    assert f"model {FACTORY} on cpu, bfloat16, batch 5, eager; " in result.stderr


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("device", "tpu", "device 'tpu' is not on this machine; it has "),
        ("backend", "turbo", "backend 'turbo' is unknown; known are eager, compile, cudagraph"),
    ],
)
def test_a_cell_that_cannot_be_had_here_is_one_sentence(
    front: Path, field: str, value: str, message: str
) -> None:
    document = json.loads(front.read_text())
    document["policies"][0]["evidence"][0]["cell"][field] = value
    front.write_text(json.dumps(document))

    assert said(called("calibrate", front, *OWN)).startswith(f"error: {message}")


def test_a_front_timed_twice_in_its_own_cell_has_its_evidence_replaced(front: Path) -> None:
    for _ in range(2):
        assert (
            called(
                *("calibrate", front, *OWN, "--batch-size", "3", "--seconds", "0.5", "--out", front)
            ).exit_code
            == 0
        )

    for policy in load_set(front).policies:
        assert [one.cell["batch"] for one in policy.evidence] == [3, 2]


def test_timings_that_confirm_nothing_are_shown_beside_those_that_are_kept(
    front: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ("calibrate", front, *OWN, "--seconds", "0.5", "--out", front)
    assert called(*again).exit_code == 0
    before = load_set(front)

    def busy(*asked: Any) -> Comparison:
        fresh = replace(by_macs(*asked), ratio=3.0, low=2.9, high=3.1)
        return replace(fresh, cautions=(Caution.BUSY,))

    monkeypatch.setattr(PolicyTimer, "time_together", together(busy))
    result = called(*again)

    assert result.exit_code == 4, result.output
    assert "too close to call: no policy is confirmed by the timings of now" in result.stderr
    assert result.stdout.count("3.00x [2.90,") == len(before.policies)
    assert result.stdout.count("no (busy), earlier") == len(before.policies)
    assert load_set(front) == before
    document = json.loads(called(*again, "--json").stdout)
    assert {one["now"]["comparison"]["ratio"] for one in document["policies"]} == {3.0}
    assert {one["comparison"]["ratio"] for one in document["policies"]}.isdisjoint({3.0})


@pytest.mark.parametrize(
    "words",
    [
        ("retarget", "{run}", *OWN, "--latency-target", "1x", "--out", "{held}"),
        ("calibrate", "{held}/front.json", *OWN),
        ("report", "{held}"),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_another_process_holds_is_left_alone(
    source: RunFolder, tmp_path: Path, words: tuple[str, ...]
) -> None:
    held = RunFolder(tmp_path / "held")
    if words[0] == "retarget":
        held.create()
    else:
        shutil.copytree(source.path, held.path)
    before = {path: path.read_bytes() for path in held.path.rglob("*.*") if path.is_file()}

    with held.locked():
        result = called(*(word.format(run=source.path, held=held.path) for word in words))

    message = f"run folder {held.path} is in use by another process; wait until that has ended"
    assert said(result) == f"error: {message}"
    left = {path: path.read_bytes() for path in before}
    assert left == before
    assert not held.path.joinpath("front-here.json").exists()


def test_a_front_that_does_not_exist_is_one_sentence(tmp_path: Path) -> None:
    result = called("calibrate", tmp_path / "none.json")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: the file cannot be read: No such file or directory (in {tmp_path / 'none.json'})\n"
    )


def test_a_front_in_the_place_of_a_policy_is_told_of_a_file_that_exists(source: RunFolder) -> None:
    with pytest.raises(PolicyError) as raised:
        load(source.front)

    named = re.search(r"such as (\S+) of its run", str(raised.value))
    assert named is not None
    assert (source.path / named[1]).is_file()


def test_what_is_no_policy_set_is_one_sentence(source: RunFolder) -> None:
    result = called("calibrate", source.run)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: format is 'tokensearch.run'; this reader wants 'tokensearch.front' "
        f"(in {source.run})\n"
    )


def test_a_front_without_policies_is_one_sentence(front: Path) -> None:
    save_set(replace(load_set(front), policies=()), front)
    before = front.read_bytes()

    assert said(called("calibrate", front, *OWN)) == (
        f"error: {front} holds no policies that could be timed"
    )
    assert front.read_bytes() == before


def of_model(front: Path, **changes: object) -> bytes:
    """Say that a front is of another model."""
    document = json.loads(front.read_text())
    for policy in document["policies"]:
        policy["model"] |= changes
    front.write_text(json.dumps(document))
    return front.read_bytes()


def test_a_front_of_a_model_that_does_not_exist_is_one_sentence(front: Path) -> None:
    before = of_model(front, name="diet_s")

    assert said(called("calibrate", front)).startswith("error: model 'diet_s' is unknown; ")
    assert front.read_bytes() == before


def test_a_factory_that_a_front_names_is_neither_imported_nor_called(
    front: Path, ending: str
) -> None:
    before = of_model(front, name=ending)

    assert said(called("calibrate", front)) == (
        f"error: the front was made for the model '{ending}', which is loaded only if you name it "
        f"yourself; give --model '{ending}'"
    )
    assert front.read_bytes() == before


def test_a_factory_that_a_run_names_is_neither_imported_nor_called(
    source: RunFolder, tmp_path: Path, ending: str
) -> None:
    where = RunFolder(Path(shutil.copytree(source.path, tmp_path / "run")))
    document = json.loads(where.run.read_text())
    document["settings"]["model"] = ending
    where.run.write_text(json.dumps(document))

    result = called("retarget", where.path, "--latency-target", "1x", "--out", tmp_path / "new")

    assert said(result).endswith(f"is loaded only if you name it yourself; give --model '{ending}'")
    assert not (tmp_path / "new").exists()


def test_a_run_is_not_retargeted_to_another_model(source: RunFolder, tmp_path: Path) -> None:
    result = called(
        "retarget", source.path, "--model", "demo", "--latency-target", "1x", "--out",
        tmp_path / "new",
    )  # fmt: skip

    assert said(result) == (
        f"error: --model is demo, but the run in {source.path} is of '{FACTORY}', whose "
        "accuracies it quotes; search with the other model, or leave --model out"
    )


def test_a_front_timed_on_another_model_says_so(front: Path) -> None:
    of_model(front, name="elsewhere:model")

    result = called("calibrate", front, *OWN, "--seconds", "0.5")

    assert result.exit_code == 0, result.output
    assert f"the front was made for 'elsewhere:model', and is timed on {FACTORY}" in result.stderr


def test_a_front_of_another_geometry_is_one_sentence(front: Path) -> None:
    before = of_model(front, width=48)

    assert "with width 48; " in said(called("calibrate", front, *OWN))
    assert front.read_bytes() == before


def test_a_front_in_an_unknown_number_type_is_one_sentence(front: Path) -> None:
    front.write_text(front.read_text().replace('"float32"', '"float33"'))

    assert said(called("calibrate", front, *OWN)) == (
        "error: number type 'float33' is unknown; known are float32, float16, bfloat16"
    )


def test_a_place_that_cannot_be_written_is_one_sentence_before_anything_is_timed(
    front: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")

    result = called("calibrate", front, *OWN, "--out", tmp_path / "file" / "front.json")

    assert result.stderr == (
        f"error: {tmp_path / 'file' / 'front.json'} cannot be written: "
        f"{tmp_path / 'file'} is a file\n"
    )


@pytest.mark.parametrize("seconds", ["0", "nan", "inf"])
def test_seconds_that_are_none_are_wrong_usage(front: Path, seconds: str) -> None:
    assert called("calibrate", front, *OWN, "--seconds", seconds).exit_code == 2


def test_a_search_starts_from_the_front_of_another_run(
    front: Path, tmp_path: Path, config: Path
) -> None:
    result = run(
        tmp_path / "run", config, "--latency-target", "0.9x", "--from", front, "--no-remember",
        "--cache-gb", "0", "--objective", "ce", "--sampler", "random", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    settings = ended(result)["settings"]
    assert (settings["objective"], settings["sampler"]) == ("ce", "random")


def test_a_front_of_another_geometry_is_no_start(front: Path, tmp_path: Path, config: Path) -> None:
    of_model(front, width=48)

    result = run(tmp_path / "run", config, "--from", front)

    assert said(result).startswith(f"error: the front to start from is of {FACTORY}, with ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--cache-gb", "--minutes"])
def test_what_is_no_number_is_wrong_usage(tmp_path: Path, option: str) -> None:
    result = called("run", "--out", tmp_path / "run", option, "nan")

    assert result.exit_code == 2
    assert not (tmp_path / "run").exists()
