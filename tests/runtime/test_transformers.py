"""Models of Hugging Face transformers follow policies as timm's do."""

import copy
import importlib
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="needs transformers: install tokensearch[transformers]")

import tokensearch
from tests.runtime.towers import MODELS, build, pictures
from tests.runtime.twins import TWINS, make_twins
from tests.search import tiny
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.errors import ModelError, PolicyError, TokensearchWarning
from tokensearch.policy import Policy, Pool, Prune, Step
from tokensearch.runtime import describe, phase_ranges, policy_of, with_backend

# Said of every tower that merges without its head; one test below asks for it.
pytestmark = pytest.mark.filterwarnings("ignore:a .* alone hands out a merged token once")

PRUNING = (Prune(0, 12, "mean_attention"), Prune(2, 7, "mean_attention"))
MERGING = (Pool(0, 12), Pool(2, 7))
MIXED = (Prune(1, 12, "mean_attention"), Pool(2, 8), Prune(3, 5, "mean_attention"))
AVERAGES = (
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
    "CLIPForImageClassification",
    "SiglipForImageClassification",
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def policy_for(model: nn.Module, *steps: Step, **changes: Any) -> Policy:
    return Policy(describe(model), steps or MIXED, **{"proportional_attention": True, **changes})


def follow(model: Any, *steps: Step, dense: bool = False, **changes: Any) -> Any:
    return tokensearch.apply(model, policy_for(model, *steps, **changes), dense=dense)


def answer(out: Any) -> Tensor:
    """Return what a model is for: its logits, or its embedding."""
    names = ("logits", "image_embeds", "pooler_output")
    value = out if isinstance(out, Tensor) else next(out[name] for name in names if name in out)
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("steps", [PRUNING, MERGING, MIXED], ids=["prune", "pool", "mixed"])
@pytest.mark.parametrize("name", TWINS)
def test_a_policy_does_to_a_model_what_it_does_to_timm_s_twin(
    name: str, steps: tuple[Step, ...]
) -> None:
    theirs, ours = make_twins(name)
    x = pictures(theirs).double()
    plain = ours(x)
    policy = policy_for(ours, *steps)

    tokensearch.apply(theirs, policy)
    tokensearch.apply(ours, policy)

    assert (ours(x) - plain).abs().max() > 1e-2
    torch.testing.assert_close(answer(theirs(x)), ours(x), atol=1e-7, rtol=0)


def test_a_policy_of_the_twin_that_ends_in_prefix_tokens_applies_too() -> None:
    theirs, ours = make_twins("Dinov2WithRegistersModel")
    x = pictures(theirs).double()

    for model in (theirs, ours):
        tokensearch.apply(model, policy_for(ours, *MIXED, last_block="prefix_only"))

    torch.testing.assert_close(answer(theirs(x)), ours(x), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_both_attentions_of_transformers_give_the_same(name: str) -> None:
    eager, fused = (build(name, attention=kind).double() for kind in ("eager", "sdpa"))
    x = pictures(eager).double()

    first, second = (follow(model)(x) for model in (eager, fused))

    assert type(first) is type(second) is type(build(name)(x.float()))
    assert set(first) == set(second)
    for key, value in first.items():
        torch.testing.assert_close(
            value, second[key], atol=1e-5, rtol=0
        )  # eager: softmax in float32


def test_a_model_of_timm_is_known_again_once_transformers_has_made_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(nn.Module, "smart_apply", raising=False)  # of tests before
    before = model_identity(tiny.model())

    build("ViTModel")

    assert hasattr(nn.Module, "smart_apply")
    assert model_identity(tiny.model()) == before


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_as_it_was_once_the_policy_is_removed(name: str) -> None:
    model = build(name)
    x = pictures(model)
    before = {key: vars(part).get("forward") for key, part in model.named_modules()}
    plain = model(x)

    with tokensearch.applied(model, policy_for(model)):
        assert not torch.equal(answer(model(x)), answer(plain))
    tokensearch.remove(follow(model))

    assert torch.equal(answer(model(x)), answer(plain))
    assert before == {key: vars(part).get("forward") for key, part in model.named_modules()}


@pytest.mark.parametrize("name", AVERAGES)
def test_a_head_s_average_counts_a_token_as_often_as_it_has_patches(name: str) -> None:
    model = build(name).double()
    x = pictures(model).double()

    with tokensearch.applied(model, policy_for(model, *MERGING)):
        by_size = model(x).logits
    with tokensearch.applied(model, policy_for(model, *MERGING), dense=True):
        by_patch = model(x).logits

    torch.testing.assert_close(by_size, by_patch)


@pytest.mark.parametrize("name", AVERAGES)
def test_a_tower_that_merges_without_its_averaging_head_says_what_to_do(name: str) -> None:
    model = build(name).double()
    tower = next(part for part in model.children() if hasattr(part, "embeddings"))
    x = pictures(model).double()
    expected = follow(model, *MERGING)(x).logits
    tokensearch.remove(model)

    with pytest.warns(TokensearchWarning, match="to the model that does so, or with dense=True"):
        follow(tower, *MERGING)
    assert not torch.allclose(model(x).logits, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        follow(tower, *MERGING, dense=True)
        torch.testing.assert_close(model(x).logits, expected)
        follow(tower, *PRUNING)  # of what is discarded, no head counts anything


@pytest.mark.parametrize("name", AVERAGES)
def test_a_head_s_average_leaves_out_what_was_discarded(name: str) -> None:
    model = follow(build(name).double())
    x = pictures(model).double()
    held = tokensearch.trace(model, x)[-1] >= 0
    logits = model(x).logits
    tower = next(part for part in model.children() if hasattr(part, "embeddings"))
    prefix = describe(model).prefix_tokens

    with tokensearch.applied(model, policy_for(model), dense=True):
        tokens = tower(x).last_hidden_state
    patches = tokens[:, prefix:] * held.unsqueeze(-1)
    mean = patches.sum(1) / held.sum(1, keepdim=True)
    wide = torch.cat([tokens[:, 0], mean], 1) if "Dinov2" in name else mean

    torch.testing.assert_close(logits, model.classifier(wide))


def test_tokens_that_are_handed_out_are_those_that_are_left() -> None:
    model = follow(build("Dinov2WithRegistersModel"))
    x = pictures(model)

    out = model(x, output_hidden_states=True)

    assert out.last_hidden_state.shape == (2, 5 + 5, 48)
    assert [tokens.shape[1] - 5 for tokens in out.hidden_states] == [16, 16, 12, 8, 5]


def test_dense_features_have_the_shapes_that_they_have_without_a_policy() -> None:
    model = build("CLIPVisionModel")
    x = pictures(model)
    shapes = [tokens.shape for tokens in model(x, output_hidden_states=True).hidden_states]

    out = follow(model, dense=True)(x, output_hidden_states=True)

    assert [tokens.shape for tokens in out.hidden_states] == shapes
    assert out.last_hidden_state.shape == shapes[-1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "name", ["ViTModel", "Dinov2ForImageClassification", "DINOv3ViTModel", "SiglipVisionModel"]
)
def test_attention_maps_are_refused_in_a_sentence(name: str, attention: str) -> None:
    model = build(name, attention="eager")
    x = pictures(model)
    expected = follow(model)(x)
    model.set_attn_implementation(attention)

    with pytest.raises(ModelError, match="keeps no attention maps; leave output_attentions out"):
        model(x, output_attentions=True)

    torch.testing.assert_close(answer(model(x)), answer(expected))  # its hooks are no hindrance
    assert len(tokensearch.remove(model)(x, output_hidden_states=True).hidden_states) == 5


def test_attention_maps_that_the_configuration_asks_for_are_refused_too() -> None:
    model = build("ViTForImageClassification", attention="eager")
    model.config.output_attentions = True

    with pytest.raises(ModelError, match="keeps no attention maps"):
        follow(model)(pictures(model))


def test_masks_are_refused() -> None:
    model = follow(build("ViTModel"))
    mask = torch.ones(2, 17)
    mask[0, 3] = 0

    with pytest.raises(ModelError, match="takes no attention mask"):
        model(pictures(model), attention_mask=mask)


def test_images_of_another_size_take_another_policy() -> None:
    model = build("ViTForImageClassification")
    x = pictures(model, size=48)
    plain = model(x, interpolate_pos_encoding=True).logits
    follow(model)

    with pytest.raises(ModelError, match="was given 36 patch tokens"):
        model(x, interpolate_pos_encoding=True)
    model.config.image_size = 48
    follow(model, Prune(2, 20))

    assert not torch.equal(model(x, interpolate_pos_encoding=True).logits, plain)


@pytest.mark.parametrize("name", ["Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel"])
def test_a_model_that_takes_any_size_takes_a_policy_of_any_size(name: str) -> None:
    small, large = build(name), build(name, image_size=48)
    policy = policy_for(large, Prune(2, 20))

    out = tokensearch.apply(small, policy)(pictures(small, size=48))

    assert out.last_hidden_state.shape[1] == describe(small).prefix_tokens + 20
    with pytest.raises(PolicyError, match="made for"):
        tokensearch.apply(build("ViTModel"), policy)


def test_the_tower_within_a_model_and_the_model_are_one() -> None:
    model = follow(build("ViTForImageClassification"))
    policy = policy_of(model)

    assert policy_of(model.vit) == policy is not None
    tokensearch.remove(model.vit)
    assert policy_of(model) is None


@pytest.mark.parametrize("name", ["Dinov2ForImageClassification", "DINOv3ViTModel"])
def test_copies_and_pickles_follow_the_policy(name: str) -> None:
    model = follow(build(name))
    x = pictures(model)
    expected = answer(model(x))

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert policy_of(twin) == policy_of(model)
        assert torch.equal(answer(twin(x)), expected)
        tokensearch.remove(twin)

    assert torch.equal(answer(model(x)), expected)


# To trace one takes seconds.
COMPILED = "Dinov2ForImageClassification", "DINOv3ViTModel"  # the others are slow


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long if n in COMPILED else pytest.mark.slow)
        for n in MODELS
    ],
)
def test_a_model_compiles_into_one_graph(name: str) -> None:
    model = follow(build(name))
    x = pictures(model)

    compiled = with_backend(model, "compile", x, compiler="eager")

    torch.testing.assert_close(answer(compiled(x)), answer(model(x)))


def test_phases_of_blocks_are_told_apart() -> None:
    seen: set[tuple[int, str]] = set()
    model = follow(build("SiglipVisionModel"))

    def around(block: int, phase: str) -> Any:
        seen.add((block, phase))
        return torch.no_grad()

    with phase_ranges(model, around):
        model(pictures(model))

    assert {"norm", "qkv", "attention", "projection", "mlp"} <= {phase for _, phase in seen}
    assert {block for block, _ in seen} == {0, 1, 2, 3}


OTHERS = {
    "swin": ("SwinConfig", "SwinModel", {"depths": [1, 1], "num_heads": [2, 2], "embed_dim": 16}),
    "beit": ("BeitConfig", "BeitModel", {"num_hidden_layers": 1}),
    "vit_mae": ("ViTMAEConfig", "ViTMAEModel", {"num_hidden_layers": 1}),
    "clip": ("CLIPTextConfig", "CLIPTextModel", {"num_hidden_layers": 1, "vocab_size": 50000}),
}


@pytest.mark.parametrize("folder", OTHERS)
def test_other_models_of_transformers_are_refused_naming_those_that_are_supported(
    folder: str,
) -> None:
    config, name, changes = OTHERS[folder]
    package = f"transformers.models.{folder}"
    made = getattr(importlib.import_module(f"{package}.configuration_{folder}"), config)(**changes)
    with torch.device("meta"):
        model = getattr(importlib.import_module(f"{package}.modeling_{folder}"), name)(made)

    with pytest.raises(
        ModelError, match=f"^a {name} has .*supported are .*transformers' ViT, DeiT"
    ):
        tokensearch.apply(model, "tome-r13")


def test_a_model_of_images_and_text_names_its_tower() -> None:
    from transformers.models.clip.configuration_clip import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    with torch.device("meta"):
        model = CLIPModel(CLIPConfig())

    with pytest.raises(ModelError, match=r"pass that: model\.vision_model"):
        tokensearch.apply(model, "tome-r13")
