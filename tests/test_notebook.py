"""Values say in a line what they are, and notebooks show them as tables."""

from dataclasses import replace

from tests.report.fixtures import FOUND, front, run_document, run_profiles
from tokensearch.diff.ledger import make_ledger
from tokensearch.policy import PolicySet

LONGEST = 160  # characters: a line


def test_every_value_says_what_it_is_in_a_line() -> None:
    result, ledger = run_document().finished, make_ledger(*run_profiles())

    for value in (FOUND, front(), PolicySet(()), result, ledger):
        assert repr(value).startswith(f"<{type(value).__name__} ")
        assert "\n" not in repr(value)
        assert len(repr(value)) <= LONGEST

    assert repr(front()) == "<PolicySet of demo: 3 policies, 19.2 ms to 40 ms>"
    assert repr(result) == (
        "<RunResult met: answer 99b913f5, 19.2 ms, 0.48x of the baseline; 5 finalists>"
    )


def test_a_notebook_shows_a_row_per_block_policy_and_finalist() -> None:
    result, ledger = run_document().finished, make_ledger(*run_profiles())

    for value, rows in ((FOUND, 12), (front(), 3), (result, 5), (ledger, 4)):
        shown = value._repr_html_()
        assert shown.count("<tr>") == rows + 1
        assert repr(value)[1:-1] in shown

    assert "<td>prune to 80 then pool to 64</td><td>64</td>" in FOUND._repr_html_()
    assert "<td>0.48x</td><td>97.3 %</td>" in front()._repr_html_()


def test_names_in_files_are_text_in_a_notebook() -> None:
    hostile = replace(FOUND, model=replace(FOUND.model, name="<script>alert(1)</script>"))

    assert "<script>" not in hostile._repr_html_()
