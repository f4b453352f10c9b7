"""What `evaluate --json` prints, as a record."""

import json

import pytest

from tests.report.fixtures import evaluated_policy
from tokensearch.records.measurements import Caution, from_json, to_json
from tokensearch.records.policy_evaluation import CountSpread, PolicyEvaluation

SPREADS = (CountSpread(0, 40.5, 38.0, 60.0, 80), CountSpread(1, 20.0, 19.0, 30.0, 44))


@pytest.mark.parametrize("spreads", [None, SPREADS])
def test_an_evaluation_is_read_as_it_was_written(spreads: tuple[CountSpread, ...] | None) -> None:
    evaluated = evaluated_policy(cautions=(Caution.DRIFT,), spreads=spreads)

    document = json.loads(json.dumps(to_json(evaluated)))

    assert from_json(PolicyEvaluation, document) == evaluated
    assert ("patch_tokens_by_image" in document) == (spreads is not None)


def test_an_evaluation_keeps_the_names_that_its_readers_know() -> None:
    document = to_json(evaluated_policy(cautions=(Caution.DRIFT,), spreads=SPREADS))

    assert list(document) == [
        *("policy", "provenance", "schedule_hash"),
        *("patch_tokens_per_block", "patch_tokens_after_block", "cell", "data"),
        *("accuracy", "paired", "patch_tokens_by_image", "comparison"),
    ]
    assert document["comparison"]["cautions"] == ["drift"]
    assert document["accuracy"]["top1"] == 0.973
    assert document["patch_tokens_by_image"][1] == {
        "block": 1, "mean": 20.0, "p50": 19.0, "p90": 30.0, "max": 44,
    }  # fmt: skip
