"""The golden page is written anew by `TOKENSEARCH_REWRITE_GOLDEN=1 pytest tests/report`."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.fixtures import run_document, run_folder, run_profiles
from tokensearch.errors import RunError
from tokensearch.policy import Outcome
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.run.page import write_report
from tokensearch.report.run.tables import facts_table
from tokensearch.report.table import sentence

GOLDEN = Path(__file__).with_name("golden") / "report.md"
PNG = b"\x89PNG\r\n\x1a\n"


def page(folder: RunFolder) -> str:
    write_report(folder)
    return folder.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of a run with its page."""
    folder = run_folder(tmp_path_factory.mktemp("written"))
    write_report(folder)
    return folder


def test_the_page_is_as_it_was(written: RunFolder) -> None:
    text = written.report.read_text(encoding="utf-8")

    if os.environ.get("TOKENSEARCH_REWRITE_GOLDEN") == "1":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


def test_the_pictures_that_the_page_shows_are_there(written: RunFolder) -> None:
    text = written.report.read_text(encoding="utf-8")

    for name in ("front.png", "waterfall.png"):
        assert f"]({name})" in text
        assert (written.path / name).read_bytes().startswith(PNG)
    assert "](flame.svg)" in text
    assert (written.path / "flame.svg").read_bytes().startswith(b"<svg")


def test_drawing_again_changes_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    page(folder)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    page(folder)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    assert before == after


def test_a_page_of_compiled_passes_says_that_the_profiles_are_eager(tmp_path: Path) -> None:
    folder, document = run_folder(tmp_path), run_document()
    folder.write_run(replace(document, settings=replace(document.settings, backend="compile")))

    said = "Profiled passes are eager; every latency is of compile passes."
    assert said in page(folder)
    assert said in folder.html.read_text(encoding="utf-8")


def test_without_labels_nothing_is_called_accuracy(tmp_path: Path) -> None:
    written = page(run_folder(tmp_path, labelled=False, profiles=False)).lower()

    assert "accura" not in written
    assert "its agreement with the baseline is 97.3 % [96.5, 98.0]" in written


@pytest.mark.parametrize("outcome", ["missed", "unreduced"])
def test_without_a_reduced_answer_the_page_has_no_schedule(
    tmp_path: Path, outcome: Outcome
) -> None:
    written = page(run_folder(tmp_path, outcome=outcome, profiles=False))

    assert "Every block keeps every token: no reduced policy is the answer." in written
    assert "No profiles were taken in this run." in written


def test_an_answer_that_reduces_nothing_has_an_empty_ledger(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, outcome="unreduced")
    baseline, _ = run_profiles()
    folder.write_profile("answer", profile_to_json(replace(baseline, name="answer")))

    written = page(folder)

    assert "- Nothing differs beyond the noise: answer takes 39.7 ms a pass" in written
    assert "waterfall.png" not in written


def test_a_run_without_an_answer_shows_where_the_baseline_spends_its_time(
    tmp_path: Path,
) -> None:
    folder = run_folder(tmp_path, outcome="missed")
    (folder.profiles / "answer.json").unlink()

    written = page(folder)

    assert "Only the baseline has a profile, as no policy is the answer." in written
    assert "| attention | - | 4.80 ms | 4.80 ms | 4.80 ms | 14.4 ms |" in written
    assert not (tmp_path / "waterfall.png").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        write_report(RunFolder(tmp_path))

    assert str(caught.value) == f"{tmp_path} holds no run.json, so it is no run folder"


def test_a_search_that_has_not_ended_names_its_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    folder.write_run(replace(run_document(), result=None))

    with pytest.raises(RunError) as caught:
        write_report(folder)

    assert str(caught.value).endswith(f" (in {tmp_path})")
    assert not folder.report.exists()


def test_damaged_images_cost_no_report(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    folder.patches.write_text("{", encoding="utf-8")

    assert "images are left out, since patches.json cannot be read: " in page(folder)


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    damaged = folder.profiles / "answer.json"
    damaged.write_text('{"format": "tokensearch.profile", "version": 1}', encoding="utf-8")

    with pytest.raises(RunError) as caught:
        write_report(folder)

    assert str(caught.value) == (f"{damaged} cannot be read as a profile: name is missing")


def test_a_run_that_lacks_what_the_page_needs_is_an_error(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    document = run_document().to_json()
    del document["budget"]
    folder.run.write_text(json.dumps(document))

    with pytest.raises(RunError) as caught:
        write_report(folder)

    assert str(caught.value) == f"budget is missing (in {folder.run})"


def test_marks_of_code_in_a_caution_are_text() -> None:
    assert sentence("run `one` and <two>") == r"run \`one\` and &lt;two>"


@pytest.mark.parametrize(
    ("gpu", "named"), [(None, "torch 2.11"), ("H100", "torch 2.11, cuda 13.2")]
)
def test_cuda_is_named_where_a_gpu_is_the_device(gpu: str | None, named: str) -> None:
    run = run_document()
    machine = replace(
        run.cell.machine, accelerator=gpu, versions=(("torch", "2.11"), ("cuda", "13.2"))
    )

    facts = facts_table(replace(run, cell=replace(run.cell, machine=machine)))

    assert dict(facts.rows)["versions"] == named


def test_a_run_says_its_date_program_host_and_memory() -> None:
    facts = dict(facts_table(run_document()).rows)

    assert facts["date"] == "2026-11-28 09:30:00 UTC"
    assert (facts["program"], facts["host"]) == ("tokensearch 0.1.0", "bench-3")
    assert facts["memory"] == "16.0 GiB"
    older = facts_table(replace(run_document(), environment=None))
    assert older.rows[-1] == ("date, program and host", "not recorded")
