"""What people do to models of transformers: offload, quantise, wrap, train, call by keyword."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="needs transformers: install tokensearch[transformers]")

import tokensearch
from tests.runtime.test_transformers import answer, follow, policy_for
from tests.runtime.towers import build, pictures
from tokensearch.errors import ModelError
from tokensearch.policy import Policy, Pool
from tokensearch.runtime import describe, policy_of

KINDS = (
    "ViTForImageClassification",
    "Dinov2ForImageClassification",
    "SiglipForImageClassification",
)


@torch.no_grad()
def outputs(model: nn.Module, x: Tensor, **more: Any) -> Tensor:
    return answer(model(pixel_values=x, **more))


# Without SigLIP's, whose pooling accelerate offloads no better without a policy.
@pytest.mark.parametrize("name", KINDS[:2])
def test_a_model_whose_weights_accelerate_offloads_follows(name: str) -> None:
    accelerate = pytest.importorskip("accelerate")
    plain = build(name)
    x, policy = pictures(plain), policy_for(plain)
    expected = outputs(tokensearch.apply(plain, policy), x)
    offloaded = accelerate.cpu_offload(build(name), execution_device=torch.device("cpu"))

    tokensearch.apply(offloaded, policy)

    torch.testing.assert_close(outputs(offloaded, x), expected)


def test_blocks_that_accelerate_spreads_over_devices_are_refused() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = build("ViTForImageClassification")
    parts = {f"vit.layers.{index}": "cpu" for index in range(4)}
    rest = {"vit.embeddings": "cpu", "vit.layernorm": "cpu", "classifier": "cpu"}
    accelerate.dispatch_model(model, {**parts, **rest}, main_device="cpu", force_hooks=True)

    with pytest.raises(ModelError, match="is moved by accelerate; load the model onto one device"):
        follow(model)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_dynamically_quantised_model_follows(name: str) -> None:
    model = build(name)
    x, policy = pictures(model), policy_for(model, Pool(1, 12))
    exact = outputs(tokensearch.apply(build(name), policy), x)

    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    tokensearch.apply(quantised, policy)

    close = nn.functional.cosine_similarity(outputs(quantised, x), exact)
    assert close.min() > 0.95


@pytest.mark.parametrize("name", KINDS)
def test_a_model_on_the_meta_device_follows(name: str) -> None:
    model = build(name).to("meta")

    tokensearch.apply(model, policy_for(model))

    assert outputs(model, pictures(model).to("meta")).is_meta


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", KINDS)
def test_half_precision_follows(name: str, kind: torch.dtype) -> None:
    exact = build(name).double()
    x, policy = pictures(exact), policy_for(exact, Pool(1, 12))
    half = tokensearch.apply(build(name).to(kind), policy)

    close = nn.functional.cosine_similarity(
        outputs(half, x.to(kind)).double(), outputs(tokensearch.apply(exact, policy), x.double())
    )

    assert close.min() > 0.99


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "DataParallel": nn.DataParallel,
    "AveragedModel": torch.optim.swa_utils.AveragedModel,
    "compile": lambda model: torch.compile(model, backend="eager"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_follows_as_the_bare_one_does(wrap: str) -> None:
    bare = build("Dinov2ForImageClassification")
    wrapped = WRAPPERS[wrap](build("Dinov2ForImageClassification"))
    x, policy = pictures(bare), policy_for(bare)

    tokensearch.apply(bare, policy)
    tokensearch.apply(wrapped, policy)

    assert policy_of(wrapped) == policy
    torch.testing.assert_close(outputs(wrapped, x), outputs(bare, x))


@pytest.mark.parametrize("name", ["ViTForImageClassification", "Dinov2ForImageClassification"])
def test_gradients_are_the_same_with_gradient_checkpointing(name: str) -> None:
    plain, saving = follow(build(name)), follow(build(name))
    saving.activation_checkpointing_enable()
    x, labels = pictures(plain), torch.tensor([1, 4])

    losses = [model.train()(pixel_values=x, labels=labels).loss for model in (plain, saving)]
    for loss in losses:
        loss.backward()

    assert torch.equal(*losses)
    for mine, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (mine.grad is None) is (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)


def test_another_classifier_after_apply_reads_what_the_first_did() -> None:
    model = follow(build("Dinov2ForImageClassification"), Pool(0, 12))
    x = pictures(model)
    model.classifier = nn.Identity()

    features = outputs(model, x)

    fresh = build("Dinov2ForImageClassification")
    fresh.classifier = nn.Identity()
    torch.testing.assert_close(features, outputs(follow(fresh, Pool(0, 12)), x))


@pytest.mark.parametrize("name", KINDS)
def test_a_pass_may_be_called_as_trainers_do(name: str) -> None:
    model = follow(build(name))
    x = pictures(model)
    expected = outputs(model, x)

    with torch.no_grad():
        as_tuple = model(pixel_values=x, return_dict=False)
    assert any(torch.equal(part, expected) for part in as_tuple)
    labels = torch.tensor([0, 1])
    labelled = model(pixel_values=x, labels=labels)
    loss = nn.functional.cross_entropy(labelled.logits, labels)
    torch.testing.assert_close(labelled.loss, loss)
    if "Dinov2" not in name:
        torch.testing.assert_close(outputs(model, x, interpolate_pos_encoding=True), expected)


def test_training_and_evaluation_mode_may_change_after_apply() -> None:
    model = follow(build("ViTForImageClassification", hidden_dropout_prob=0.5))
    x = pictures(model)
    before = outputs(model, x)

    model.train()
    drawn = outputs(model, x), outputs(model, x)
    model.eval()

    assert not torch.equal(*drawn)
    assert torch.equal(outputs(model, x), before)


def test_another_attention_after_apply_computes_the_same() -> None:
    model = follow(build("Dinov2ForImageClassification"))
    x = pictures(model)
    before = outputs(model, x)

    model.set_attn_implementation("eager")

    torch.testing.assert_close(outputs(model, x), before)


def test_merged_tokens_at_another_size_are_averaged_by_patches() -> None:
    model = build("SiglipForImageClassification").double()
    model.config.vision_config.image_size = 48
    policy = Policy(describe(model), (Pool(0, 30), Pool(2, 20)), proportional_attention=True)
    x = pictures(model, size=48).double()

    with tokensearch.applied(model, policy):
        by_size = outputs(model, x, interpolate_pos_encoding=True)
    with tokensearch.applied(model, policy, dense=True):
        by_patch = outputs(model, x, interpolate_pos_encoding=True)

    torch.testing.assert_close(by_size, by_patch)
