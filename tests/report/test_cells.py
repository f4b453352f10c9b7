"""Several runs on one page: what to ship where, and what one policy for all would cost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.report.fixtures import FOUND, MILD, comparison, run_document, run_folder
from tests.report.test_html import Reader
from tokensearch.cli.main import app
from tokensearch.records.measurements import Caution
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import ChoiceFigures, Finalist, RunDocument
from tokensearch.report.cells import (
    choose_for_all,
    doubt_sentences,
    read_cells,
    ship_table,
    verdict_sentences,
    worst_cost,
)
from tokensearch.report.run.result import measure_of


def called(*words: str) -> Result:
    return CliRunner().invoke(app, ["report", *words])


def in_other_cell(ratios: dict[str, float], answer: str, as_good: tuple[str, ...]) -> RunDocument:
    """A run of batch 1, where policies have other latencies and another is the answer."""
    document = run_document()

    def timed(finalist: Finalist) -> Finalist:
        ratio = ratios.get(finalist.schedule_hash)
        return finalist if ratio is None else replace(finalist, comparison=comparison(ratio))

    result = replace(
        document.finished,
        answer_hash=answer,
        as_good=as_good,
        finalists=tuple(map(timed, document.finished.finalists)),
    )
    return replace(document, cell=replace(document.cell, batch=1), result=result)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """At batch 8 the deeper policy is the answer, at batch 1 the milder, by a quarter."""
    first, second = (run_folder(tmp_path / name, profiles=False) for name in ("a", "b"))
    ratios = {FOUND.schedule_hash: 0.5, MILD.schedule_hash: 0.4}
    hashes = (MILD.schedule_hash, FOUND.schedule_hash)
    second.write_run(in_other_cell(ratios, MILD.schedule_hash, hashes))
    return [first.path, second.path]


def test_the_one_policy_for_all_is_as_good_as_each_answer_and_says_its_cost(
    runs: list[Path],
) -> None:
    cells = read_cells(runs)
    chosen = choose_for_all(cells)

    assert chosen is not None
    assert chosen.schedule_hash == FOUND.schedule_hash
    assert worst_cost(FOUND.schedule_hash, cells) == pytest.approx(0.5 / 0.4)


def test_the_page_shows_every_cell_and_loads_nothing(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"

    result = called(*map(str, runs), "--out", str(out))

    assert result.exit_code == 0, result.stderr
    assert "or found 99b913f5 in all" in " ".join(result.stdout.split())
    assert "at most 1.25x the latency" in " ".join(result.stdout.split())
    reader = Reader((out / "report.html").read_text(encoding="utf-8"))
    ship, shared = reader.tables["table-ship"], reader.tables["table-shared"]
    assert ["batch 8" in ship[1][-2], "batch 1," in ship[2][-2]] == [True, True]
    assert [row[1] for row in ship[1:]] == ["found 99b913f5", "found b19998e4"]
    assert next(row for row in shared if row[0] == "found 99b913f5")[1:4] == [
        "1.00x",
        "1.25x",
        "1.25x",
    ]
    assert not [attrs for _, attrs in reader.tags if "src" in attrs]
    assert not [tag for tag, _ in reader.tags if tag in {"link", "img", "script"}]
    assert (out / "report_data" / "ship.csv").exists()


def test_controls_are_not_shipped(runs: list[Path], tmp_path: Path) -> None:
    called(*map(str, runs), "--out", str(tmp_path / "out"))

    assert "random-tome-r16" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_where_a_loss_is_bounded_all_within_it_would_do(runs: list[Path]) -> None:
    within, beyond = FOUND.schedule_hash, MILD.schedule_hash
    for path in runs:
        run = RunFolder(path).require_run()
        losses = [
            replace(f, choice=ChoiceFigures("0", 0.0, 0.3 if f.schedule_hash == beyond else 0.1))
            for f in run.finished.finalists
        ]
        settings = replace(run.settings, target=None, max_divergence=0.2)
        result = replace(run.finished, as_good=None, answer_hash=within, finalists=tuple(losses))
        RunFolder(path).write_run(replace(run, settings=settings, result=result))

    for cell in read_cells(runs):
        kept = {f.schedule_hash for f in cell.run.finished.finalists} & cell.as_good
        assert within in kept
        assert beyond not in kept
        assert len(kept) > 1


def test_where_nothing_is_as_good_everywhere_one_policy_per_cell_is_shipped(
    runs: list[Path],
) -> None:
    RunFolder(runs[1]).write_run(in_other_cell({}, MILD.schedule_hash, (MILD.schedule_hash,)))

    assert choose_for_all(read_cells(runs)) is None
    said = " ".join(called(*map(str, runs), "--out", str(runs[0] / "x")).stdout.split())
    assert said.startswith("Ship one policy per cell: 2 policies for 2 cells.")


def test_runs_that_do_not_go_together_are_one_sentence(runs: list[Path], tmp_path: Path) -> None:
    other = RunFolder(runs[1])
    model = run_document().model
    (tmp_path / "file").write_text("", encoding="utf-8")
    cases = [
        (replace(run_document(), model=replace(model, name="deit")), "give runs of one model"),
        (replace(run_document(), model=replace(model, weights="sha256:0")), "of one checkpoint"),
        (replace(run_document(), result=None), "has not ended"),
        (run_document(outcome="missed"), "has no answer: no policy meets 0.4x; leave it out"),
    ]
    for document, sentence in cases:
        other.write_run(document)
        result = called(*map(str, runs))
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1

    nowhere = called(str(runs[0]), str(tmp_path))
    assert nowhere.stderr == f"error: {tmp_path} holds no run.json, so it is no run folder\n"
    taken = called(str(runs[0]), str(runs[0]), "--out", str(tmp_path / "file"))
    assert taken.exit_code == 1
    assert taken.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert taken.stderr.count("\n") == 1


def test_a_doubtful_answer_is_not_said_to_meet_its_target(runs: list[Path]) -> None:
    other = RunFolder(runs[1])
    run = other.require_run()
    assert "it meets every target" in verdict_sentences(read_cells(runs))[0]

    other.write_run(replace(run, result=replace(run.finished, outcome="ambiguous")))

    assert "it may meet every target" in verdict_sentences(read_cells(runs))[0]


def test_runs_that_measure_other_things_say_so(runs: list[Path]) -> None:
    other = RunFolder(runs[1])
    run = other.require_run()
    other.write_run(replace(run, data=replace(run.data, labelled=not run.data.labelled)))
    cells = read_cells(runs)

    own, theirs = (measure_of(cell.run) for cell in cells)
    assert own != theirs
    assert f"{own} or {theirs}" in ship_table(cells).columns
    assert f"the runs measure {own} and {theirs}, which cannot be compared" in doubt_sentences(
        cells
    )


def test_a_doubt_about_the_timing_of_an_answer_is_a_caution(runs: list[Path]) -> None:
    other = RunFolder(runs[1])
    run = other.require_run()
    doubtful = tuple(
        replace(each, comparison=replace(each.comparison, cautions=(Caution.WIDE_SPREAD,)))
        for each in run.finished.finalists
    )
    other.write_run(replace(run, result=replace(run.finished, finalists=doubtful)))

    said = doubt_sentences(read_cells(runs))

    assert [one.partition(": passes differ")[0] for one in said if "of the answer" in one] == [
        "run 2, of the answer"
    ]


def test_the_page_of_a_run_is_not_replaced(runs: list[Path]) -> None:
    result = called(*map(str, runs), "--out", str(runs[0]))

    assert result.exit_code == 1
    assert f"folder {runs[0]} of --out holds a run" in result.stderr
    assert not (runs[0] / "report.html").exists()


def test_json_names_the_page_and_what_to_ship(runs: list[Path], tmp_path: Path) -> None:
    result = called(*map(str, runs), "--out", str(tmp_path / "out"), "--json")

    said = json.loads(result.stdout)
    assert said["page"] == str(tmp_path / "out" / "report.html")
    assert said["sentences"][0].startswith("Ship one policy per cell")
