import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.fixtures import paired, run_document, run_folder
from tokensearch.policy import Outcome
from tokensearch.records.measurements import PairedAccuracy
from tokensearch.records.run_result import Alternative, RunDocument
from tokensearch.report.run.alternatives import alternative_sentences, standing
from tokensearch.report.run.page import write_report
from tokensearch.report.run.sentences import answer_sentences

Ratio = tuple[float, float, float]  # with its interval

FASTER, ALIKE, SLOWER = ((r, r - 0.01, r + 0.01) for r in (0.40, 0.485, 0.60))


def lead(difference: float, low: float, high: float, p_value: float) -> PairedAccuracy:
    return replace(paired(973, 958), difference=difference, low=low, high=high, p_value=p_value)


MORE, LESS = lead(0.02, 0.01, 0.03, 0.001), lead(-0.02, -0.03, -0.01, 0.001)
UNPROVEN = lead(-0.002, -0.009, 0.005, 0.6)


def changed(number: int, ratio: Ratio | None = None, **changes: object) -> Alternative:
    """One of the alternatives of a run, with other figures."""
    only = replace(run_document().finished.alternatives[number], **changes)
    if ratio is None:
        return only
    value, low, high = ratio
    return replace(only, comparison=replace(only.comparison, ratio=value, low=low, high=high))


def among(*alternatives: Alternative, outcome: Outcome = "met") -> RunDocument:
    """A run with these alternatives."""
    run = run_document(outcome=outcome)
    return replace(run, result=replace(run.finished, alternatives=alternatives))


def said_of(lead: PairedAccuracy, ratio: Ratio) -> str:
    """What is said of the same model on smaller images, `lead` being that of the answer."""
    (sentence,) = alternative_sentences(among(changed(0, ratio, lead=lead)))
    return sentence


@pytest.mark.parametrize(
    ("lead", "ratio", "expected"),
    [
        (LESS, FASTER, "dominates"),
        (LESS, ALIKE, "dominates"),
        (UNPROVEN, FASTER, "dominates"),
        (UNPROVEN, ALIKE, "matches"),
        (LESS, SLOWER, "behind"),
        (UNPROVEN, SLOWER, "behind"),
        (MORE, FASTER, "behind"),
        (MORE, ALIKE, "behind"),
    ],
)
def test_an_alternative_dominates_that_is_better_in_one_and_worse_in_neither_significantly(
    lead: PairedAccuracy, ratio: Ratio, expected: str
) -> None:
    answer = run_document().finished.answer
    assert answer is not None

    assert standing(answer, changed(0, ratio, lead=lead)) == expected


def test_a_dominated_answer_is_said_to_be_dominated() -> None:
    assert said_of(LESS, FASTER) == (
        "The answer is dominated: the baseline at 160 px (0.40x [0.39, 0.41], 93.1 % "
        "[92.3, 93.8]) has 2.0 points more accuracy on the same images (+2.0 points [+1.0, +3.0], "
        "p = 0.001) and is faster by 16.7 %."
    )


def test_what_cannot_be_told_from_the_answer_is_said_to_match_it() -> None:
    assert said_of(UNPROVEN, ALIKE) == (
        "Not significantly different from the answer: the baseline at 160 px (0.48x "
        "[0.47, 0.49], 93.1 % [92.3, 93.8]) has 0.2 points more accuracy on the same images "
        "(+0.2 points [-0.5, +0.9], p = 0.600), which is not significant, and is as fast within "
        "the noise."
    )


def test_an_answer_that_nothing_dominates_says_so_of_each() -> None:
    assert answer_sentences(run_document())[-1] == (
        "No simpler way dominates the answer: the baseline at 160 px (0.45x [0.44, 0.46], "
        "93.1 % [92.3, 93.8]) has 4.2 points less accuracy on the same images (-4.2 points "
        "[-4.8, -3.6], p = 0.021) and is faster by 6.2 %; the smaller model deit_t (0.49x "
        "[0.48, 0.50], 95.8 % [95.0, 96.5]) has 1.5 points less accuracy on the same images "
        "(-1.5 points [-2.1, -0.9], p = 0.021) and is as fast within the noise."
    )


def test_only_those_that_dominate_are_named_as_dominating() -> None:
    first, strong = changed(0), changed(1, lead=LESS)

    (said,) = alternative_sentences(among(first, strong))

    assert said.startswith("The answer is dominated: the smaller model deit_t (")
    assert "160 px" not in said


def test_a_target_that_no_schedule_meets_but_an_alternative_does_is_said() -> None:
    missed = run_document(outcome="missed")
    assert alternative_sentences(missed) == (
        "Nor is it certain that the baseline at 160 px (0.45x [0.44, 0.46], 93.1 % "
        "[92.3, 93.8]) and the smaller model deit_t (0.49x [0.48, 0.50], 95.8 % [95.0, 96.5]) "
        "would meet it.",
    )

    fast = changed(0, (0.35, 0.34, 0.36), lead=None)
    assert alternative_sentences(among(fast, outcome="missed")) == (
        "Without a schedule the target is met by the baseline at 160 px (0.35x [0.34, 0.36], "
        "93.1 % [92.3, 93.8]).",
    )


def test_a_run_without_alternatives_says_nothing_of_them(tmp_path: Path) -> None:
    folder, document = run_folder(tmp_path, profiles=False), run_document().to_json()
    del document["result"]["rivals"]  # as runs that were written before there were any
    folder.run.write_text(json.dumps(document))

    write_report(folder)

    assert alternative_sentences(folder.require_run()) == ()
    assert "## Other ways to be as fast\n\nNone was measured." in folder.report.read_text()
