import json

from tests.report.ledgers import in_every_block, of_itself, of_known_terms
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.report.diff.to_json import ledger_to_json


def test_the_document_names_its_format_and_both_sides() -> None:
    document = ledger_to_json(of_known_terms())

    assert (document["format"], document["version"]) == ("tokensearch.ledger", 1)
    assert (document["baseline"]["name"], document["candidate"]["name"]) == ("baseline", "halved")
    assert document["candidate"]["patch_tokens"] == [100, 50, 50, 40]
    assert document["baseline"]["cell"]["machine"]["name"] == "Example CPU 3000, 4 cores"


def test_sums_of_kinds_are_the_difference() -> None:
    document = ledger_to_json(of_known_terms())

    kinds = {one["kind"]: round(one["ms"]["value"], 3) for one in document["by_kind"]}

    assert kinds == {"saved": -7.8, "spent": 1.6, "shifted": 0.5, "residual": 0.1}
    assert round(document["difference_ms"]["value"], 3) == -5.6


def test_every_figure_says_whether_it_is_significant() -> None:
    document = ledger_to_json(of_known_terms())

    assert document["ratio"]["proven"]
    assert not next(one for one in document["by_kind"] if one["kind"] == "residual")["proven"]
    assert [one["loses"] for one in document["paybacks"]] == [False, True]


def test_operators_say_what_became_of_them() -> None:
    found = of_known_terms(operators=tuple(in_every_block("attention", "math", 1.0)))

    (one,) = ledger_to_json(found)["operators"]

    assert (one["name"], one["change"], one["candidate_calls"]) == ("math", "added", 4.0)


def test_it_holds_the_words_and_no_samples() -> None:
    found = of_itself()
    written = json.dumps(ledger_to_json(found), allow_nan=False)

    assert json.loads(written)["words"] == list(ledger_sentences(found))
    assert "passes_ms" not in written
