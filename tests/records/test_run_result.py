"""run.json: its records, and the schema that is published of it.

The schema is written anew by `TOKENSEARCH_REWRITE_GOLDEN=1 pytest tests/records`.
"""

import json
import os
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.report.fixtures import run_document
from tokensearch.errors import RunError
from tokensearch.policy import Outcome
from tokensearch.policy.file import SCHEMA_FILE as POLICY_SCHEMA_FILE
from tokensearch.policy.file import to_text
from tokensearch.records.checks import run_schema
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import EXIT_CODES, SCHEMA_FILE, RunDocument

GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMA = jsonschema.Draft202012Validator(run_schema())
POLICY_SCHEMA = jsonschema.Draft202012Validator(json.loads(POLICY_SCHEMA_FILE.read_text()))


def written(**changes: Any) -> dict[str, Any]:
    """What run.json holds of a finished run."""
    document: dict[str, Any] = json.loads(written_text())
    return document | changes


@cache
def written_text() -> str:
    return json.dumps(run_document().to_json())


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder, document = RunFolder(tmp_path), run_document()

    folder.write_run(document)

    assert folder.read_run() == document
    assert folder.run.read_text() == to_text(folder.require_run().to_json())


@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_an_outcome_has_its_exit_code(outcome: Outcome) -> None:
    result = run_document(outcome=outcome).to_json()["result"]

    assert (result["outcome"], result["exit_code"]) == (outcome, EXIT_CODES[outcome])


def test_the_answer_is_the_finalist_with_its_schedule() -> None:
    result = run_document().finished

    assert result.answer is not None
    assert result.answer.schedule_hash == result.answer_hash
    assert run_document(outcome="missed").finished.answer is None


def test_what_a_run_has_not_is_not_written_where_older_files_lack_it() -> None:
    document = written()

    assert not document.keys() & {"identity", "retargeted"}
    assert "environment" not in replace(run_document(), environment=None).to_json()
    assert "contents" not in document["data"]["splits"]["report"]
    assert document["launching"] is None


def test_a_run_of_before_the_environment_was_written_is_read() -> None:
    older = written()
    del older["environment"]

    assert RunDocument.from_json(older) == replace(run_document(), environment=None)


def test_fields_of_a_newer_release_are_passed_over() -> None:
    newer = written(mood="sunny")
    newer["settings"]["mood"] = newer["result"]["finalists"][0]["mood"] = "sunny"

    assert RunDocument.from_json(newer) == run_document()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "the file is not of a tokensearch run"),
        ({"version": 2}, "version is 2; known is 1"),
        ({"budget": 7}, "budget is 7; it must be an object"),
        ({"smaller": {}}, "smaller.name is missing"),
    ],
)
def test_what_is_no_run_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError) as raised:
        RunDocument.from_json(written(**changes))

    assert str(raised.value) == message


def test_the_published_schema_is_what_the_reader_checks() -> None:
    if os.environ.get("TOKENSEARCH_REWRITE_GOLDEN") == "1":
        SCHEMA_FILE.write_text(to_text(run_schema()))

    assert json.loads(SCHEMA_FILE.read_text()) == run_schema()
    jsonschema.Draft202012Validator.check_schema(run_schema())


@pytest.mark.parametrize("run", ["demo_run", "tiny_run"])
def test_old_runs_meet_the_schema_and_so_do_their_policies(run: str) -> None:
    document = json.loads((GOLDEN / run / "run.json").read_text())

    assert list(SCHEMA.iter_errors(document)) == []
    for finalist in document["result"]["finalists"]:
        assert list(POLICY_SCHEMA.iter_errors(finalist["policy"])) == []


@pytest.mark.parametrize("outcome", EXIT_CODES)
def test_what_is_written_meets_the_schema(outcome: Outcome) -> None:
    assert list(SCHEMA.iter_errors(run_document(outcome=outcome).to_json())) == []


def places(part: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path to a single value in a document, but for what policies and versions hold."""
    if {"policy", "versions"} & set(path):
        return []
    if isinstance(part, list):
        part = dict(enumerate(part[:1]))
    if not isinstance(part, dict):
        return [path]
    return [found for name, value in part.items() for found in places(value, (*path, name))]


@pytest.mark.parametrize("path", places(written()), ids=lambda path: ".".join(map(str, path)))
def test_what_the_schema_refuses_the_reader_refuses_too(path: tuple[Any, ...]) -> None:
    *outer, name = path
    for value in ([], "no such thing", -(10.0**30)):
        damaged = deepcopy(written())
        part: Any = damaged
        for step in outer:
            part = part[step]
        part[name] = value
        if not SCHEMA.is_valid(damaged):
            with pytest.raises(RunError):
                RunDocument.from_json(damaged)


def test_an_alternative_that_is_not_compared_with_the_answer_is_refused() -> None:
    document = written()
    document["result"]["rivals"][0]["lead"] = None

    with pytest.raises(RunError, match=r"result\.rivals\[0\]\.lead is null"):
        RunDocument.from_json(document)
