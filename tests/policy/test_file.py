import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_policy import SPEC, policies
from tokensearch.documents import MAX_BYTES
from tokensearch.documents.checks import MAX_NAME
from tokensearch.errors import PolicyError, TokensearchError
from tokensearch.policy import (
    BOUNDS,
    Evidence,
    Policy,
    PolicySet,
    Prune,
    load,
    load_set,
    save,
    save_set,
)
from tokensearch.policy.file import (
    MAX_EVIDENCE,
    MAX_STEPS,
    SCHEMA_FILE,
    policy_from_json,
    policy_to_json,
)

EVIDENCE = Evidence(
    cell={
        "device": "cpu",
        "dtype": "float32",
        "batch": 8,
        "resolution": 224,
        "backend": "eager",
        "machine": {},
    },
    latency={"median_ms": 12.5},
    accuracy={"top1": 0.97},
    baseline={"median_ms": 25.0},
    confirmed=True,
)


def written(**changes: Any) -> dict[str, Any]:
    document = policy_to_json(Policy(SPEC, (Prune(1, 12),)))
    return {key: value for key, value in {**document, **changes}.items() if value is not ...}


@given(policies())
def test_reading_back_what_was_written_gives_an_equal_policy(policy: Policy) -> None:
    assert policy_from_json(json.loads(json.dumps(policy_to_json(policy)))) == policy


@given(policies())
def test_every_written_policy_meets_the_published_schema(policy: Policy) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))

    assert list(schema.iter_errors(policy_to_json(policy.with_evidence(EVIDENCE)))) == []


def test_the_schema_has_the_readers_bounds() -> None:
    schema = json.loads(SCHEMA_FILE.read_text())["properties"]
    model = schema["model"]["properties"]

    assert {name: (model[name]["minimum"], model[name]["maximum"]) for name in BOUNDS} == BOUNDS
    assert model["name"]["maxLength"] == MAX_NAME
    assert (schema["steps"]["maxItems"], schema["evidence"]["maxItems"]) == (
        MAX_STEPS,
        MAX_EVIDENCE,
    )


@pytest.mark.parametrize("name", BOUNDS)
def test_a_model_beyond_any_is_refused_before_its_blocks_are_counted(name: str) -> None:
    model = {**written()["model"], name: 10**7}
    least, most = BOUNDS[name]

    with pytest.raises(PolicyError) as raised:
        policy_from_json(written(model=model))

    assert str(raised.value) == (
        f"model.{name} is 10000000; it must be an integer from {least} to {most}"
    )


def test_evidence_survives_the_file(tmp_path: Path) -> None:
    policy = Policy(SPEC, (Prune(1, 12),)).with_evidence(EVIDENCE, provenance={"trial": 17})

    save(policy, tmp_path / "policy.json")

    assert load(tmp_path / "policy.json") == policy
    assert [path.name for path in tmp_path.iterdir()] == ["policy.json"]


def test_a_block_may_be_said_to_keep_its_tokens() -> None:
    said = written(steps=[{"block": 0, "op": "keep"}, {"block": 1, "op": "prune", "keep": 12}])

    assert policy_from_json(said) == Policy(SPEC, (Prune(1, 12),))


def test_a_set_survives_the_file(tmp_path: Path) -> None:
    policies = PolicySet((Policy(SPEC).with_evidence(EVIDENCE),))

    save_set(policies, tmp_path / "front.json")

    assert load_set(tmp_path / "front.json") == policies


def test_unknown_fields_are_kept_and_warned_about() -> None:
    with pytest.warns(UserWarning, match="keeps but ignores: colour"):
        policy = policy_from_json(written(colour="blue"))

    assert policy_to_json(policy)["colour"] == "blue"


def test_the_file_format_is_pinned() -> None:
    assert json.dumps(written()) == (
        '{"format": "tokensearch.policy", "version": 1, "model": {"name": "toy", "blocks": 4, '
        '"patch_tokens": 16, "prefix_tokens": 1, "width": 8}, "steps": [{"block": 1, '
        '"op": "prune", "keep": 12, "score": "class_attention"}], "proportional_attention": false, '
        '"last_block": "full", "evidence": [], "provenance": {}}'
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (written(version=2), "version is 2; this reader knows 1"),
        (written(format="tome"), "format is 'tome'; this reader wants 'tokensearch.policy'"),
        (written(steps=...), "steps is missing"),
        (written(steps={}), "steps is {}; it must be a list"),
        (
            written(steps=[{"block": 1, "op": "melt"}]),
            "steps[0].op is 'melt'; it must be one of keep, prune, pool, prune_or_pool, "
            "threshold, merger",
        ),
        (written(steps=[{"block": 1, "op": "prune"}]), "steps[0].keep is missing"),
        (
            written(steps=[{"block": 1, "op": "prune", "keep": 2, "when": "late"}]),
            "steps[0] has the unknown field 'when'",
        ),
        (
            written(steps=[{"block": 1, "op": "prune", "keep": 2.5}]),
            "steps[0].keep is 2.5; it must be an integer from 1 to 1048576",
        ),
        (written(model={"name": "toy"}), "model.blocks is missing"),
        (
            written(proportional_attention=1),
            "proportional_attention is 1; it must be true or false",
        ),
        (written(evidence=[3]), "evidence[0] is 3; it must be an object"),
    ],
)
def test_a_document_that_is_no_policy_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        policy_from_json(document)

    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "the file holds a list, not an object"),
        (b'{"keep": NaN}', "the file is not JSON: NaN is no number there"),
        (b"[" * 100_000, None),
        (b"\xff\xfe\x00", None),
        (b" " * (MAX_BYTES + 1), "the file is larger than 8 MiB; a policy is not"),
    ],
)
def test_an_unreadable_file_is_refused_by_name(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)

    with pytest.raises(PolicyError) as raised:
        load(path)

    assert message is None or str(raised.value) == f"{message} (in {path})"
    assert str(raised.value).endswith(f" (in {path})")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted(written())), json_values)
@pytest.mark.filterwarnings("ignore:the policy has fields")
def test_a_mutated_policy_raises_only_our_errors(name: str, value: object) -> None:
    with suppress(TokensearchError):
        assert isinstance(policy_from_json(written(**{name: value})), Policy)
