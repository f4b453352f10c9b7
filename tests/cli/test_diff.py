"""`tokensearch diff` and `tokensearch profile`: what they take, leave and refuse."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.costs.machine import SyntheticMachine, table_of, treads
from tests.report.fixtures import run_folder
from tests.report.ledgers import baseline, candidate
from tests.search import tiny
from tokensearch.chrome.events import MAX_BYTES
from tokensearch.cli.main import app
from tokensearch.costs import save_costs
from tokensearch.policy import Policy, Pool, save
from tokensearch.profiles import profile_to_json
from tokensearch.runtime import describe

TINY = ("--model", "tests.search.tiny:model", "--batch-size", "2", "--seconds", "1")


def run(*args: str | Path) -> Result:
    found = CliRunner().invoke(app, list(map(str, args)))
    assert isinstance(found.exception, SystemExit | None), found.exception
    return found


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    save(Policy(describe(tiny.model()), (Pool(2, 8),)), path)
    return path


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Path]:
    """Two profiles whose every term is known."""
    paths = tmp_path / "one.json", tmp_path / "other.json"
    for path, profile in zip(paths, (baseline(), candidate()), strict=True):
        path.write_text(json.dumps(profile_to_json(profile)))
    return paths


def trace_of(path: Path, *, width: int) -> Path:
    layer, x = torch.nn.Linear(width, width), torch.ones(64, width)
    with torch.inference_mode(), torch.profiler.profile() as profiler:
        layer(x)
    profiler.export_chrome_trace(str(path))
    return path


def test_a_preset_and_a_policy_are_profiled_on_the_spot(policy: Path, tmp_path: Path) -> None:
    found = run("diff", "none", policy, *TINY, "--out", tmp_path / "out")

    assert found.exit_code == 0, found.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "baseline",
        "candidate",
        "flame.svg",
        "ledger.json",
        "tensorboard",
        "waterfall.png",
        "waterfall.svg",
    }
    assert len(list((tmp_path / "out" / "tensorboard").rglob("*.json.gz"))) == 2
    ledger = json.loads((tmp_path / "out" / "ledger.json").read_text())
    kinds = sum(term["ms"]["value"] for term in ledger["by_kind"])
    assert kinds == pytest.approx(ledger["difference_ms"]["value"])


def test_what_was_left_can_be_compared_again(policy: Path, tmp_path: Path) -> None:
    run("diff", "none", policy, *TINY, "--out", tmp_path / "out")

    again = run(
        "diff", tmp_path / "out/baseline", tmp_path / "out/candidate/profile.json", "--json"
    )

    first = json.loads((tmp_path / "out/ledger.json").read_text())
    assert again.exit_code == 0
    assert json.loads(again.stdout)["difference_ms"]["value"] == pytest.approx(
        first["difference_ms"]["value"], rel=1e-6
    )


def test_a_model_can_be_compared_with_itself() -> None:
    found = run("diff", "none", "none", *TINY, "--json")

    document = json.loads(found.stdout)
    assert [document[side]["name"] for side in ("baseline", "candidate")] == ["none", "none again"]


def test_known_terms_are_shown_in_words(stored: tuple[Path, Path]) -> None:
    found = run("diff", *stored)

    assert found.exit_code == 0
    for said in ("26.0 ms", "20.4 ms", "saved", "spent", "shifted", "closes"):
        assert said in found.output


def test_two_traces_are_compared_by_operator(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=64), trace_of(tmp_path / "b.json", width=512)

    found = run("diff", one, other, "--json")

    names = {change["name"] for change in json.loads(found.stdout)["operators"]}
    assert "aten::addmm" in names
    assert "aten::addmm" in run("diff", one, other).output


def test_traces_leave_a_ledger_of_operators_and_say_that_no_steps_are_marked(
    tmp_path: Path,
) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), trace_of(tmp_path / "b.json", width=8)

    found = run("diff", one, other, "--out", tmp_path / "out")

    document = json.loads((tmp_path / "out" / "ledger.json").read_text())
    assert document["operators"]
    assert document["words"] == [
        f"{trace} marks no steps, so all of it counts as one." for trace in (one, other)
    ]
    assert f"{one} marks no steps" in "".join(found.stdout.splitlines())


def test_traces_of_two_devices_say_which(tmp_path: Path) -> None:
    one, other = trace_of(tmp_path / "a.json", width=8), tmp_path / "b.json"
    document = json.loads(one.read_text())
    first = next(event for event in document["traceEvents"] if event.get("cat") == "cpu_op")
    kernel = {"cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "args": {}}
    document["traceEvents"].append(first | kernel)
    document["deviceProperties"] = [{"id": 0, "name": "Example GPU"}]
    other.write_text(json.dumps(document))

    words = json.loads(run("diff", one, other, "--json").stdout)["words"]

    assert words[0] == (
        f"The devices differ: {one} ran on the host alone and {other} ran on Example GPU."
    )


def test_cautions_stand_in_the_document_and_in_the_file(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    found = run("diff", *stored, "--json", "--out", tmp_path / "out")

    assert "caution: few passes were timed" in found.stderr
    for document in (found.stdout, (tmp_path / "out" / "ledger.json").read_text()):
        assert "few_passes" in json.loads(document)["cautions"]


def test_profiling_again_leaves_only_the_newer_trace_and_what_is_no_trace(tmp_path: Path) -> None:
    own, other = (tmp_path / "tensorboard" / name for name in ("none", "other"))
    for folder in (own, other):
        folder.mkdir(parents=True)
        (folder / "none.1.pt.trace.json.gz").touch()
    (own / "notes.txt").touch()

    run("profile", *TINY, "--out", tmp_path)

    (trace,) = own.glob("*.gz")
    assert trace.name != "none.1.pt.trace.json.gz"
    assert (own / "notes.txt").exists()
    assert list(other.iterdir())


def test_a_run_folder_stands_for_its_answers_profile(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run").path

    found = run("diff", folder, folder, "--json")

    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["difference_ms"]["value"] == 0


def refused(*args: str | Path) -> str:
    found = run("diff", *args)
    assert found.exit_code == 1, found.output
    assert found.stdout == ""
    said = found.stderr[found.stderr.index("error: ") :]
    _, *notes = said.splitlines()
    assert all(note.startswith("  ") for note in notes)
    return said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.json", b'{"traceEvents": [{"ph": "X", "cat": "cpu', "JSON"),
        ("broken.json.gz", gzip.compress(b"x" * 100_000)[:40] + b"!", "ended before"),
        ("other.json", b'{"$schema": "speedscope", "profiles": []}', "traceEvents"),
        ("profile.json", b'{"format": "tokensearch.profile", "version": 9}', "version 9"),
        ("policy.json", b'{"format": "tokensearch.policy", "version": 1}', "model"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    message = refused("none", path)

    assert said in message
    assert name in message


def test_a_trace_that_is_too_large_is_refused_unread(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: nothing is written

    assert "200 MB" in refused(stored[0], path)


def test_profiles_of_two_models_are_refused(stored: tuple[Path, Path]) -> None:
    document = json.loads(stored[1].read_text()) | {"model": "another"}
    stored[1].write_text(json.dumps(document))

    assert "profiles of two models cannot be compared" in refused(*stored)


def test_a_policy_that_does_not_fit_is_refused(policy: Path) -> None:
    assert "the policy was made for" in refused("none", policy, "--model", "demo")


def test_an_unknown_preset_is_refused() -> None:
    assert "tome-r99x" in refused("none", "tome-r99x", *TINY)


def test_a_trace_cannot_be_compared_with_a_preset(tmp_path: Path) -> None:
    assert "none is neither" in refused("none", trace_of(tmp_path / "a.json", width=8))


def unused_clock(*_: object, **__: object) -> None:
    raise AssertionError("what is refused must be refused before anything is timed")


@pytest.mark.parametrize("verb", ["diff", "profile", "sweep"])
def test_a_file_cannot_be_the_folder_and_that_is_said_before_timing(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.profiling.profile", unused_clock)
    monkeypatch.setattr("tokensearch.costs.sweep.sweep", unused_clock)
    (tmp_path / "out").touch()
    asked = {"diff": ("diff", "none", "none"), "sweep": ("profile", "--sweep")}

    found = run(*asked.get(verb, (verb,)), *TINY, "--out", tmp_path / "out")

    assert found.exit_code == 1
    assert "out cannot be made: File exists" in found.stderr


@pytest.mark.parametrize("costs", ["missing", "of another model"])
def test_costs_that_cannot_be_used_are_refused_before_timing(
    costs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokensearch.profiling.profile", unused_clock)
    path = tmp_path / "costs.json"
    if costs != "missing":
        save_costs(table_of(SyntheticMachine(treads), seconds=10), path)
    said = {"missing": "a cost table cannot be read", "of another model": "holds the costs of toy"}

    assert said[costs] in refused("none", "none", *TINY, "--costs", path)


def test_costs_of_another_cell_make_no_claim(stored: tuple[Path, Path], tmp_path: Path) -> None:
    save_costs(table_of(SyntheticMachine(treads), seconds=10), tmp_path / "costs.json")

    document = json.loads(run("diff", *stored, "--costs", tmp_path / "costs.json", "--json").stdout)

    assert any("swept in another cell" in one for one in document["words"])


def test_what_was_timed_is_left_even_when_no_ledger_can_be_made_of_it(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    document = json.loads(stored[1].read_text()) | {"model": "another"}
    stored[1].write_text(json.dumps(document))

    refused(*stored, "--out", tmp_path / "out")

    assert len(list((tmp_path / "out").rglob("profile.json"))) == 2


def test_costs_are_refused_with_traces(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "a.json", width=8)

    said = refused(trace, trace, "--costs", tmp_path / "costs.json")

    assert "--costs are of token counts, of which a Chrome trace has none" in said


def test_costs_that_cannot_be_written_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = table_of(SyntheticMachine(treads), seconds=10)
    monkeypatch.setattr("tokensearch.costs.sweep.sweep", lambda *_, **__: swept)
    (tmp_path / "costs.json").mkdir()

    found = run("profile", "--sweep", *TINY, "--out", tmp_path)

    assert found.exit_code == 1
    assert "costs.json cannot be written: Is a directory" in found.stderr


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    assert "no profile and no run" in refused("none", tmp_path)


def test_a_profile_is_printed_and_left(tmp_path: Path) -> None:
    found = run("profile", *TINY, "--out", tmp_path)

    assert found.exit_code == 0, found.output
    assert "GFLOP/s" in found.stdout
    assert json.loads((tmp_path / "profile.json").read_text())["name"] == "none"


def test_a_profile_takes_a_policy_or_a_preset_and_not_both(policy: Path) -> None:
    assert run("profile", "--policy", policy, "--preset", "none").exit_code == 2
    assert json.loads(run("profile", "--policy", policy, *TINY, "--json").stdout)["floor"]


def test_a_preset_is_no_policy_file() -> None:
    found = run("profile", "--policy", "none", *TINY)

    assert found.exit_code == 1
    assert "none is no policy" in found.stderr


def test_a_trace_is_no_policy_file_either(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.json", width=8)

    found = run("profile", "--policy", trace, *TINY)

    assert found.exit_code == 1
    assert "trace.json is no policy file and no folder of a run" in found.stderr


def test_work_is_said_to_be_that_of_a_batch() -> None:
    assert "A pass of 2 images needs" in run("profile", *TINY).stdout


def test_beside_a_stored_profile_the_other_is_taken_in_its_cell(
    policy: Path, tmp_path: Path
) -> None:
    run("diff", "none", policy, *TINY, "--out", tmp_path / "out")
    quick = ("--model", "tests.search.tiny:model", "--seconds", "1")

    found = json.loads(run("diff", tmp_path / "out/baseline", policy, *quick, "--json").stdout)

    assert found["candidate"]["cell"]["batch"] == found["baseline"]["cell"]["batch"] == 2
    assert not found["paired"]
    assert found["ratio"]["low"] > 0


def test_the_folder_of_a_diff_says_which_of_its_folders_are_profiles(
    policy: Path, tmp_path: Path
) -> None:
    run("diff", "none", policy, *TINY, "--out", tmp_path / "out")

    assert "give its folder baseline or candidate" in refused(tmp_path / "out", "none")
