import json
from typing import Any

import jsonschema
import pytest

from tests.policy.test_policy import SPEC
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, Prune, Threshold
from tokensearch.policy.file import SCHEMA_FILE, policy_from_json, policy_to_json

POLICY = Policy(SPEC, (Threshold(1, 9, 0.02), Threshold(2, 4, 0.1)), counts="per_image")


def test_thresholds_are_written_and_read_to_the_last_digit() -> None:
    policy = Policy(SPEC, (Threshold(1, 9, 0.1 + 0.2),), counts="per_image")
    document = json.loads(json.dumps(policy_to_json(policy)))

    assert policy_from_json(document) == policy
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    assert list(schema.iter_errors(document)) == []


def test_counts_and_thresholds_are_part_of_the_schedule() -> None:
    other = Policy(SPEC, (Threshold(1, 9, 0.03), Threshold(2, 4, 0.1)), counts="per_image")

    assert POLICY.schedule_hash != other.schedule_hash
    assert POLICY.patch_tokens_per_block == (16, 16, 9, 4)


def test_without_a_threshold_that_acts_counts_are_static() -> None:
    policy = Policy(SPEC, (Threshold(3, 4, 0.1),), last_block="prefix_only", counts="per_image")

    assert policy == Policy(SPEC, last_block="prefix_only")
    assert Policy(SPEC, counts="per_image").schedule_hash == Policy(SPEC).schedule_hash


@pytest.mark.parametrize(
    ("steps", "counts", "message"),
    [
        ((Threshold(1, 9, 0.1),), "static", "threshold at block 1 stands in a policy whose counts"),
        ((Prune(1, 9),), "per_image", "are per_image; such a policy is made only of thresholds"),
        ((), "some", "counts is 'some'; it may be static or per_image"),
        ((Threshold(1, 9, float("nan")),), "per_image", "has the threshold nan; it must be a"),
        ((Threshold(1, 17, 0.1),), "per_image", "threshold at block 1 keeps 17 of the 16"),
    ],
)
def test_thresholds_stand_in_policies_of_their_own(steps: Any, counts: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy(SPEC, steps, counts=counts)
