import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from tests.policy.learned import random_tensors
from tests.policy.test_file import EVIDENCE
from tests.policy.test_policy import SPEC
from tokensearch.errors import PolicyError
from tokensearch.policy import (
    Merger,
    Policy,
    PolicySet,
    Pool,
    Prune,
    RawTensor,
    Tensors,
    load,
    load_set,
    save,
    save_set,
)
from tokensearch.policy.file import SCHEMA_FILE, policy_from_json, policy_to_json
from tokensearch.policy.tensors import MAX_HEADER_BYTES, MAX_TENSORS_BYTES

STEP = Merger(1, 3, "merger.1")
POLICY = Policy(SPEC, (STEP,), tensors=random_tensors(SPEC.width, STEP))
ONE = RawTensor("F32", (2,), bytes(8))


def in_bytes(header: Any, numbers: bytes = bytes(8), *, length: int | None = None) -> bytes:
    written = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(written) if length is None else length).to_bytes(8, "little") + written + numbers


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


@pytest.mark.parametrize(
    "name",
    ["mine.json", "drop 0.5+kl (1).json", ".hidden.json", "a:b\\c.json", f"{'x' * 200}.json"],
)
def test_a_policy_and_its_tensors_survive_their_files(name: str, tmp_path: Path) -> None:
    save(POLICY, tmp_path / name)

    again = load(tmp_path / name)

    assert len(list(tmp_path.iterdir())) == 2
    assert again == POLICY
    assert again.tensors is not None
    assert again.tensors.by_name == POLICY.tensors.by_name


def test_saving_writes_over_no_weights_and_no_tensors_of_the_file_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, weights = tmp_path / "deit.json", tmp_path / "deit.safetensors"
    weights.write_bytes(b"of a model")
    save(POLICY, path)
    other = replace(POLICY, tensors=random_tensors(SPEC.width, STEP, seed=1))

    def no_room(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("tokensearch.policy.file.to_text", no_room)
    with pytest.raises(OSError, match="no room"):
        save(other, path)

    assert load(path) == POLICY
    assert weights.read_bytes() == b"of a model"


def test_members_of_a_front_have_tensors_of_their_own(tmp_path: Path) -> None:
    other = replace(POLICY, tensors=random_tensors(SPEC.width, STEP, seed=1))
    policies = [one.with_evidence(EVIDENCE) for one in (POLICY, other, Policy(SPEC))]
    save_set(PolicySet(tuple(policies)), tmp_path / "front.json")

    again = load_set(tmp_path / "front.json").policies

    assert len(list(tmp_path.iterdir())) == 3
    assert again == tuple(policies)
    assert [one.tensors and one.tensors.by_name for one in again] == [
        one.tensors and one.tensors.by_name for one in policies
    ]


def test_a_policy_with_tensors_meets_the_published_schema() -> None:
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))

    assert list(schema.iter_errors(policy_to_json(POLICY, tensors_file="a-b 2.safetensors"))) == []


def test_tensors_are_what_the_schedule_hash_depends_on() -> None:
    other = replace(POLICY, tensors=random_tensors(SPEC.width, STEP, seed=1))

    assert POLICY.schedule_hash != other.schedule_hash


def test_a_policy_out_of_a_record_has_no_numbers_and_equals_its_original(tmp_path: Path) -> None:
    apart = policy_from_json(policy_to_json(POLICY))

    assert apart == POLICY
    assert apart.schedule_hash == POLICY.schedule_hash
    with pytest.raises(PolicyError, match="was read without its tensors file; read it with"):
        save(apart, tmp_path / "apart.json")


def test_safetensors_reads_what_is_written_and_is_read() -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}

    ours = Tensors.from_bytes(save_safetensors(tensors, metadata={"made by": "safetensors"}))
    theirs = load_safetensors(Tensors.pack(ours.by_name).data)

    assert {name: (raw.dtype, raw.shape) for name, raw in ours.by_name.items()} == {
        "a": ("BF16", (3,)),
        "b": ("F32", (2, 3)),
    }
    assert all(torch.equal(theirs[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "the file cannot be read: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is not the one that the policy"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "is not the one that the policy"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
            "is not the one that the policy was saved with",
        ),
    ],
    ids=["missing", "cut", "grown", "changed"],
)
def test_another_file_beside_the_policy_is_refused(
    damage: Any, message: str, tmp_path: Path
) -> None:
    save(POLICY, tmp_path / "policy.json")
    (tensors,) = tmp_path.glob("policy-*.safetensors")
    damage(tensors)

    with pytest.raises(PolicyError, match=message) as raised:
        load(tmp_path / "policy.json")

    assert str(raised.value).endswith(
        f" (in {tensors.name}, which the policy needs; copy both files together, "
        f"in {tmp_path / 'policy.json'})"
    )


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", ".safetensors", "x.bin"])
def test_tensors_lie_beside_their_policy_and_nowhere_else(name: str) -> None:
    document = policy_to_json(POLICY, tensors_file=name)

    with pytest.raises(PolicyError, match="must be the name of a file in the same folder"):
        policy_from_json(document)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "says that its header has 0"),
        (in_bytes(entry(), length=MAX_HEADER_BYTES + 1), f"it may have {MAX_HEADER_BYTES}"),
        (in_bytes(entry(), length=2**63), "says that its header has 9223372036854775808"),
        (in_bytes(b"{}") + bytes(MAX_TENSORS_BYTES), f"it may have {MAX_TENSORS_BYTES}"),
        (in_bytes(b"[1"), "the file is not JSON"),
        (in_bytes(b"{}"), "the last 8 bytes of the tensors file are no tensor"),
        (in_bytes(entry(dtype="I64")), "dtype is 'I64'; it must be one of F64, F32, F16, BF16"),
        (in_bytes(entry(shape=[3])), "lies at bytes 0 to 8 and takes 12"),
        (in_bytes(entry(shape=[2**20] * 4)), "takes 4835703278458516698824704"),
        (in_bytes(entry(data_offsets=[4, 12])), "from byte 0 on, within 8 bytes"),
        (in_bytes(entry(data_offsets=[0, 16], shape=[4])), "within 8 bytes"),
        (in_bytes({**entry(), "b": entry()["a"]}), "tensors must follow one another from byte 8"),
        (in_bytes({"\x1b[2J": entry()["a"]}), "the name of a tensor"),
        (in_bytes({**entry(), "__metadata__": {"a": 1}}), "'a' is 1; it must be text"),
    ],
)
def test_bytes_that_are_no_tensors_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PolicyError, match=message.replace("[", r"\[")):
        Tensors.from_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: {}, "the tensor 'merger.1.norm.bias' is missing"),
        (lambda held: {**held, "x": ONE}, "the tensor 'x' is named by no step"),
        (
            lambda held: {**held, "merger.1.queries": held["merger.1.norm.bias"]},
            r"'merger.1.queries' has the shape \(8,\); it must have \(3, 8\)",
        ),
    ],
)
def test_a_policy_has_exactly_the_tensors_that_its_steps_name(change: Any, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        replace(POLICY, tensors=Tensors.pack(change(dict(POLICY.tensors.by_name))))


@pytest.mark.parametrize(
    ("steps", "last_block"),
    [
        ((Prune(0, 16, "learned", tensors="a"), STEP), "full"),
        ((STEP, Merger(3, 2, "a")), "prefix_only"),
    ],
    ids=["keeps all", "in a last block without patches"],
)
def test_tensors_of_a_step_that_changes_nothing_are_refused_as_such(
    steps: Any, last_block: Any
) -> None:
    with pytest.raises(PolicyError, match="is named by no step that changes anything"):
        Policy(SPEC, steps, last_block=last_block, tensors=random_tensors(SPEC.width, *steps))


@pytest.mark.parametrize(
    "steps",
    [
        (Merger(1, 5, "a"), Merger(2, 4, "a")),
        (Merger(1, 8, "a"), Pool(2, 6, metric="learned", tensors="a.norm")),
    ],
)
def test_steps_that_share_a_tensor_want_it_in_one_shape(steps: Any) -> None:
    with pytest.raises(PolicyError, match=r"an earlier step in .*; give each its own tensors"):
        Policy(SPEC, steps, tensors=random_tensors(SPEC.width, *steps))


def test_steps_may_share_their_tensors() -> None:
    steps = Merger(1, 5, "a"), Merger(2, 5, "a")

    assert Policy(SPEC, steps, tensors=random_tensors(SPEC.width, *steps)).steps == steps


def test_a_learned_metric_has_a_bias_for_each_feature() -> None:
    step = Pool(1, 9, metric="learned", tensors="a")
    held = {**random_tensors(SPEC.width, step).by_name, "a.bias": RawTensor("F32", (1,), bytes(4))}

    with pytest.raises(PolicyError, match="a metric of 4 features with a bias of 1; there must be"):
        Policy(SPEC, (step,), tensors=Tensors.pack(held))


def test_a_step_that_learned_needs_tensors() -> None:
    with pytest.raises(PolicyError, match="the steps name the tensor"):
        Policy(SPEC, (STEP,))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((replace(STEP, scale=-1.0),), "merger at block 1 has the scale -1.0"),
        ((replace(STEP, values="new"),), "averages values that are 'new'; known are normed, raw"),
        ((replace(STEP, at="start"),), "acts at 'start'; known are between, block_end"),
        ((Prune(1, 9, at="block_end"), replace(STEP, keep=3)), "block 1 has prune, then merger"),
    ],
)
def test_a_merger_that_contradicts_itself_is_refused(steps: tuple[Any, ...], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Policy(SPEC, steps, tensors=POLICY.tensors)


def test_a_step_at_the_end_of_a_block_spares_its_mlp_nothing() -> None:
    ending = Policy(SPEC, (Prune(1, 9, at="block_end"),))

    assert ending.patch_tokens_per_block == (16, 16, 9, 9)
    assert ending.patch_tokens_after_block == (16, 9, 9, 9)
