"""`tokensearch diff`: what it takes, leaves and refuses."""

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.profiled import TINY, refused, run, unused_clock
from tests.costs.machine import SyntheticMachine, table_of, treads
from tests.report.fixtures import run_folder
from tests.search import tiny
from tokensearch.costs import save_costs
from tokensearch.policy import Policy, Pool, save
from tokensearch.runtime import describe


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a diff of a preset and a policy leaves."""
    folder = tmp_path_factory.mktemp("diff")
    save(Policy(describe(tiny.model()), (Pool(2, 8),)), folder / "policy.json")
    found = run("diff", "none", folder / "policy.json", *TINY, "--out", folder / "out")
    assert found.exit_code == 0, found.output
    return folder / "out"


def test_a_preset_and_a_policy_are_profiled_on_the_spot(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {
        "baseline",
        "candidate",
        "flame.svg",
        "ledger.json",
        "tensorboard",
        "waterfall.png",
        "waterfall.svg",
    }
    assert len(list((out / "tensorboard").rglob("*.json.gz"))) == 2
    ledger = json.loads((out / "ledger.json").read_text())
    kinds = sum(term["ms"]["value"] for term in ledger["by_kind"])
    assert kinds == pytest.approx(ledger["difference_ms"]["value"])


def test_what_was_left_can_be_compared_again(out: Path) -> None:
    again = run("diff", out / "baseline", out / "candidate/profile.json", "--json")

    first = json.loads((out / "ledger.json").read_text())
    assert again.exit_code == 0
    assert json.loads(again.stdout)["difference_ms"]["value"] == pytest.approx(
        first["difference_ms"]["value"], rel=1e-6
    )


@pytest.mark.long
def test_a_model_can_be_compared_with_itself() -> None:
    found = run("diff", "none", "none", *TINY, "--json")

    document = json.loads(found.stdout)
    assert [document[side]["name"] for side in ("baseline", "candidate")] == ["none", "none again"]


def test_known_terms_are_shown_in_words(stored: tuple[Path, Path]) -> None:
    found = run("diff", *stored)

    assert found.exit_code == 0
    for said in ("26.0 ms", "20.4 ms", "saved", "spent", "shifted", "closes"):
        assert said in found.output


def test_cautions_stand_in_the_document_and_in_the_file(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    found = run("diff", *stored, "--json", "--out", tmp_path / "out")

    assert "caution: few passes were timed" in found.stderr
    for document in (found.stdout, (tmp_path / "out" / "ledger.json").read_text()):
        assert "few_passes" in json.loads(document)["cautions"]


def test_a_run_folder_stands_for_its_answers_profile(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run").path

    found = run("diff", folder, folder, "--json")

    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["difference_ms"]["value"] == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.json", b'{"traceEvents": [{"ph": "X", "cat": "cpu', "JSON"),
        ("broken.json.gz", gzip.compress(b"x" * 100_000, mtime=0)[:40] + b"!", "ended before"),
        ("other.json", b'{"$schema": "speedscope", "profiles": []}', "traceEvents"),
        ("other.json", b'{"profiles": []}', "accepted are names of presets, policy files"),
        (
            "costs.json",
            b'{"format": "tokensearch.costs"}',
            "format 'tokensearch.costs'; accepted are",
        ),
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


def test_profiles_of_two_models_are_refused(stored: tuple[Path, Path]) -> None:
    document = json.loads(stored[1].read_text()) | {"model": "another"}
    stored[1].write_text(json.dumps(document))

    assert "profiles of two models cannot be compared" in refused(*stored)


def test_a_policy_that_does_not_fit_is_refused(policy: Path) -> None:
    assert "the policy was made for" in refused("none", policy, "--model", "demo")


@pytest.mark.parametrize("verb", [("diff", "none"), ("profile", "--policy")])
def test_a_factory_that_a_policy_names_is_neither_imported_nor_called(
    policy: Path, verb: tuple[str, ...], ending: str
) -> None:
    document = json.loads(policy.read_text())
    document["model"]["name"] = ending
    policy.write_text(json.dumps(document))

    found = run(*verb, policy)

    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == (
        f"error: the policy was made for the model '{ending}', which is loaded only if you name "
        f"it yourself; give --model '{ending}'\n"
    )


def test_a_factory_that_a_profile_names_is_neither_imported_nor_called(
    stored: tuple[Path, Path], ending: str
) -> None:
    document = json.loads(stored[0].read_text())
    stored[0].write_text(json.dumps({**document, "model": ending}))

    assert f"the profile was made for the model '{ending}'" in refused(stored[0], "none")


def test_an_unknown_preset_is_refused_before_a_model_is_named(tmp_path: Path) -> None:
    found = run("diff", "none", "tome-r99x", *TINY, "--out", tmp_path / "out")

    assert found.exit_code == 1
    assert found.stderr.startswith("error: preset 'tome-r99x' is unknown; the nearest are")
    assert "Chrome traces" in found.stderr
    assert not (tmp_path / "out").exists()


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
    said = {
        "missing": "the file cannot be read: No such file",
        "of another model": "holds the costs of toy",
    }

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


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    assert "no profile and no run" in refused("none", tmp_path)


def test_beside_a_stored_profile_the_other_is_taken_in_its_cell(out: Path, policy: Path) -> None:
    quick = ("--model", "tests.search.tiny:model", "--seconds", "1")

    found = json.loads(run("diff", out / "baseline", policy, *quick, "--json").stdout)

    assert found["candidate"]["cell"]["batch"] == found["baseline"]["cell"]["batch"] == 2
    assert not found["paired"]
    assert found["ratio"]["low"] > 0


def test_the_folder_of_a_diff_says_which_of_its_folders_are_profiles(out: Path) -> None:
    assert "give its folder baseline or candidate" in refused(out, "none")


def test_all_that_was_left_is_named(stored: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"

    named = run("diff", *stored, "--out", folder).stdout.split()

    left = {str(path) for path in folder.rglob("*") if path.is_file()}
    assert left <= set(named)


def test_options_that_would_be_ignored_are_refused(stored: tuple[Path, Path]) -> None:
    said = refused(*stored, "--model", "deit_s", "--batch-size", "4", "--seconds", "5")

    assert said.startswith(
        "error: --model, --batch-size and --seconds are for what is profiled on the spot, but "
    )
    assert said.endswith("are stored; leave them out\n")


def test_another_batch_than_that_of_the_stored_profile_is_refused(
    policy: Path, stored: tuple[Path, Path]
) -> None:
    said = refused(stored[0], policy, "--batch-size", "4")

    assert "--batch-size is 4, but the stored profile baseline was taken with 8" in said


def test_a_picture_that_cannot_be_drawn_is_one_sentence(
    stored: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "out" / "waterfall.png").mkdir(parents=True)

    assert "waterfall.png cannot be written: Is a directory" in refused(
        *stored, "--out", tmp_path / "out"
    )
