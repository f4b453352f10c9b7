"""What is doubtful about a row stands on the row, and names an option that exists."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command

from tests.report.fixtures import front, run_document, run_folder
from tokensearch.cli.main import app
from tokensearch.records.measurements import Caution, Latency
from tokensearch.records.run_result import RunDocument
from tokensearch.report.run import tables
from tokensearch.report.run.alternatives import alternative_table
from tokensearch.report.run.footnotes import Footnotes
from tokensearch.report.run.notes import baseline_note, front_row_notes
from tokensearch.report.run.page import write_report
from tokensearch.report.run.sentences import contradiction_sentences


def doubted(origin: str, *cautions: Caution) -> RunDocument:
    """A run with cautions on the timing of one finalist, or of its first alternative."""
    run = run_document()
    finalists = tuple(
        replace(
            f, comparison=replace(f.comparison, cautions=cautions if f.origin == origin else ())
        )
        for f in run.finished.finalists
    )
    first, *others = run.finished.alternatives
    if origin == "resolution":
        first = replace(first, comparison=replace(first.comparison, cautions=cautions))
    result = replace(run.finished, finalists=finalists, alternatives=(first, *others), cautions=())
    return replace(run, result=result)


def test_a_doubt_about_a_row_is_a_mark_on_it_and_a_note_below() -> None:
    run = doubted("sampler", Caution.FEW_PASSES, Caution.BUSY)

    assert [row[0] for row in tables.front_table(front(), run).rows] == [
        "found 99b913f5 ¹²",
        "found b19998e4",
        "baseline",
    ]
    assert front_row_notes(front(), run)[-2:] == (
        "¹ few passes were timed: allow more --confirm-seconds, and --minutes for them",
        "² other programs worked on the machine while timing: stop them, and repeat",
    )


def test_where_only_rows_are_doubted_no_report_says_that_nothing_was(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    said = []
    for run in (doubted("sampler", Caution.WIDE_SPREAD), doubted("nobody")):
        folder.write_run(run)
        page = write_report(folder).read_text(encoding="utf-8")
        for words in (page, folder.report.read_text(encoding="utf-8")):
            said.append(("None besides those marked" in words, "None was raised" in words))

    assert said == [(True, False), (True, False), (False, True), (False, True)]


def test_a_doubt_about_a_control_stands_on_its_own_row_alone() -> None:
    run = doubted("resolution", Caution.WIDE_SPREAD)

    assert not any("¹" in note for note in front_row_notes(front(), run))
    names = [row[0] for row in alternative_table(run).rows]
    assert names == ["found 99b913f5", "the baseline at 160 px ¹", "the smaller model deit_t"]


def test_what_was_confirmed_and_is_not_on_the_front_is_named() -> None:
    run = run_document()
    (published,) = (f.origin for f in run.finished.finalists if tables.kind_of(f) == "published")

    (said,) = (note for note in front_row_notes(front(), run) if "confirmed too" in note)

    assert said.startswith(
        f"{published} is confirmed too, but left out of the table: a row of the table is as fast "
        "and as good on select. "
    )
    assert "random-" not in said


@pytest.mark.parametrize("verb", ["run", "retarget"])
def test_what_a_note_names_is_an_option_of_the_command(verb: str) -> None:
    known = {name for option in get_command(app).commands[verb].params for name in option.opts}  # type: ignore[attr-defined]
    run = doubted("sampler", *Caution)
    told = replace(run, retargeted="runs/other" if verb == "retarget" else None)
    rows = [told.finished.finalists[0].comparison]
    named = {
        word.strip(",.;:")
        for line in Footnotes.of_run(told).lines(rows)
        for word in line.split()
        if word.startswith("--")
    }

    assert ("--minutes" in named) == (verb == "run")
    assert "--confirm-seconds" in named
    assert named <= known


def test_timings_that_contradict_each_other_are_said_to() -> None:
    run = run_document()
    first, *others = run.finished.finalists
    before = replace(first.comparison, ratio=0.27, low=0.26, high=0.28)
    again = replace(first, earlier=before)
    result = replace(run.finished, finalists=(again, *others))

    assert contradiction_sentences(run) == ()
    assert contradiction_sentences(replace(run, result=result)) == (
        "The timings of found 99b913f5 contradict each other: before it took 0.27x [0.26, 0.28], "
        "now 0.48x [0.47, 0.49]; time it again on a quiet machine.",
    )


def test_no_more_cautions_are_known_than_there_are_marks() -> None:
    raised = doubted("sampler", *Caution).finished.finalists[0].comparison

    assert len(Footnotes([raised]).lines([raised])) == min(9, len(Caution))


def test_a_baseline_with_two_latencies_says_which_is_which() -> None:
    run = run_document()
    answer = run.finished.answer
    assert answer is not None
    slower = replace(answer.comparison, baseline=Latency((41.3,), 1))
    finalists = tuple(
        replace(f, comparison=slower) if f is answer else f for f in run.finished.finalists
    )
    moved = replace(run, result=replace(run.finished, finalists=finalists))

    said = "The baseline was timed as policies are: 40.0 ms. Beside the answer it took 41.3 ms."
    assert said in front_row_notes(front(), moved)
    assert baseline_note(run) is None
