"""Models of transformers from folders: weights, outputs, preparation of images, identity."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

pytest.importorskip("transformers", reason="needs transformers: install tokensearch[transformers]")

import tokensearch
from tests.hugging_face import PROCESSORS, make_processor, save
from tests.runtime.towers import MODELS, build
from tests.runtime.twins import TWINS, make_twins
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.data.folder import to_pixels
from tokensearch.data.pixels import Preprocessing
from tokensearch.errors import ModelError, TokensearchWarning
from tokensearch.hugging_face import HuggingFaceModel, class_names, prepare_as
from tokensearch.models import load_model, resolve_model, returns_embeddings, skeleton
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.runtime import describe, policy_of


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def loaded(folder: Path, **more: Any) -> Any:
    return load_model(resolve_model(f"hf:{folder}"), **more)


@pytest.mark.parametrize("name", MODELS)
def test_what_a_model_returns_is_its_logits_or_its_embedding(name: str, tmp_path: Path) -> None:
    build(name).save_pretrained(tmp_path)
    (tmp_path / "data.json").write_text('{"crop_pct": 1.0}')
    theirs = type(build(name)).from_pretrained(tmp_path).eval()
    images = torch.randn(2, 3, 32, 32)

    model = loaded(tmp_path, data_config=tmp_path / "data.json").module

    out = theirs(images)
    field = "image_embeds" if "Projection" in name else "pooler_output"
    expected = out.logits if "ForImage" in name else out[field]
    assert torch.equal(model(images), expected)
    assert returns_embeddings(model) is ("ForImage" not in name)
    assert describe(skeleton(resolve_model(f"hf:{tmp_path}"))) == describe(theirs)


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_the_model_s_own_processor_does_it(
    name: str, tmp_path: Path
) -> None:
    config = loaded(save(name, tmp_path)).data_config
    preprocessing = Preprocessing.of(config)
    ramp = np.linspace(0, 255, 90 * 70 * 3).reshape(90, 70, 3).astype(np.uint8)
    image = Image.fromarray(ramp)

    ours = preprocessing.normalised(torch.as_tensor(to_pixels(preprocessing)(image)))

    theirs = make_processor(name)(image, return_tensors="pt").pixel_values[0]
    assert ours.shape == theirs.shape
    level = 1 / 255 / min(preprocessing.std)  # PIL and torch round to other neighbours
    torch.testing.assert_close(ours, theirs, atol=2 * level, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5},
        {"do_resize": False},
        {"size": {"longest_edge": 32}},
        {"size": {"shortest_edge": 32, "longest_edge": 64}},
    ],
)
def test_a_preparation_that_timm_s_transform_has_not_is_refused(changes: dict[str, Any]) -> None:
    processor = {**make_processor("ViTForImageClassification").to_dict(), **changes}

    with pytest.raises(ModelError, match="say with --data-config FILE how images are prepared"):
        prepare_as(processor, "hf:someone/model")


@pytest.mark.parametrize("resized", [224, 232, 236, 248, 256, 292])
def test_the_resized_side_is_got_back_from_the_crop_s_share(resized: int) -> None:
    processor = make_processor("CLIPVisionModel").to_dict()
    sizes = {"size": {"shortest_edge": resized}, "crop_size": {"height": 224, "width": 224}}

    share = prepare_as({**processor, **sizes}, "hf:someone/model")["crop_pct"]

    assert int(224 / share) == resized


@pytest.mark.parametrize("name", sorted(MODELS.keys() - {"CLIPForImageClassification"}))
def test_models_take_images_of_another_size(name: str) -> None:
    model = HuggingFaceModel(build(name), {})
    plain = model(torch.ones(1, 3, 32, 32))

    model.set_input_size((48, 64))

    assert model(torch.ones(1, 3, 48, 64)).shape == plain.shape
    assert describe(model).patch_tokens == 6 * 8


def test_a_model_that_cannot_resample_positions_refuses_another_size(tmp_path: Path) -> None:
    folder = save("CLIPForImageClassification", tmp_path)

    with pytest.raises(ModelError, match="cannot resample its positions; leave --img-size out"):
        skeleton(resolve_model(f"hf:{folder}"), {"img_size": 48})


def test_merging_at_another_size_counts_each_patch() -> None:
    model = HuggingFaceModel(build("SiglipForImageClassification").double(), {})
    model.set_input_size((48, 48))
    images = torch.randn(2, 3, 48, 48).double()
    policy = Policy(describe(model), (Pool(0, 30), Pool(2, 20)), proportional_attention=True)

    with tokensearch.applied(model, policy):
        by_size = model(images)
    with tokensearch.applied(model, policy, dense=True):
        by_patch = model(images)

    torch.testing.assert_close(by_size, by_patch)


def test_the_model_inside_follows_the_policy() -> None:
    model = HuggingFaceModel(build("Dinov2Model"), {})
    policy = Policy(describe(model), (Prune(1, 8),))

    tokensearch.apply(model, policy)

    assert policy_of(model) == policy_of(model.model) == policy


@pytest.mark.parametrize("name", ["ViTForImageClassification", "Dinov2Model"])
def test_a_policy_found_on_either_twin_applies_to_the_other(name: str) -> None:
    theirs, ours = make_twins(name)
    wrapped = HuggingFaceModel(theirs, {})
    images = torch.randn(2, 3, 32, 32).double()
    specs = describe(ours, name=TWINS[name][1]), describe(wrapped, name="hf:someone/model")

    for spec in specs:
        policy = Policy(spec, (Prune(0, 12, "mean_attention"), Pool(2, 7)))
        with tokensearch.applied(wrapped, policy), tokensearch.applied(ours, policy):
            torch.testing.assert_close(wrapped(images), ours(images), atol=1e-7, rtol=0)


def test_without_a_pooler_the_class_token_is_the_embedding(tmp_path: Path) -> None:
    folder = save("ViTForImageClassification", tmp_path, architectures=["ViTModel"])
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("ViTForImageClassification", "ViTModel"))
    images = torch.randn(2, 3, 32, 32)

    with pytest.warns(TokensearchWarning, match="no weights of a pooler; its class token is"):
        model = loaded(folder).module

    tokens = build("ViTForImageClassification").vit(images).last_hidden_state
    assert torch.equal(model(images), tokens[:, 0])


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = save("ViTForImageClassification", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelError, match=r"lacks 1 weights of a ViT\w+: classifier.weight"):
        loaded(folder)


def test_weights_of_more_blocks_than_the_configuration_says_are_refused(tmp_path: Path) -> None:
    folder = save("ViTForImageClassification", tmp_path)
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 3'))

    with pytest.raises(
        ModelError, match=r"more blocks than its configuration says \(vit\.layers\.3"
    ):
        loaded(folder)


def test_weights_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be loaded as ViTForImageClassification with num"):
        loaded(save("ViTForImageClassification", tmp_path), options={"num_labels": 9})


def test_weights_that_are_no_safetensors_are_not_read(tmp_path: Path) -> None:
    folder = save("ViTForImageClassification", tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(build("ViTForImageClassification").state_dict(), folder / "pytorch_model.bin")

    with pytest.raises(ModelError, match="has no safetensors, and other files of weights"):
        loaded(folder)


def test_a_checkpoint_takes_the_place_of_the_weights(tmp_path: Path) -> None:
    folder = save("ViTForImageClassification", tmp_path / "model")
    other = build("ViTForImageClassification", seed=1)
    torch.save({"model": other.state_dict()}, tmp_path / "own.pt")

    model = loaded(folder, checkpoint=tmp_path / "own.pt").module

    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(images), other(images).logits)


def test_where_a_model_lies_is_no_part_of_what_it_is(tmp_path: Path) -> None:
    first = save("Dinov2Model", tmp_path / "first")
    shutil.copytree(first, tmp_path / "second")

    one, other = (model_identity(loaded(tmp_path / name).module) for name in ("first", "second"))

    assert one == other
    assert "transformers" in one.versions


def test_timm_s_models_are_what_they_were(tmp_path: Path) -> None:
    del tmp_path
    assert "transformers" not in model_identity(make_twins("Dinov2Model")[1]).versions


def test_named_classes_are_known_and_numbered_ones_are_not() -> None:
    named = {0: "cat", 1: "dog"}

    assert class_names(build("ViTForImageClassification")) is None
    assert class_names(build("ViTForImageClassification", id2label=named, num_labels=2)) == (
        "cat",
        "dog",
    )
    assert class_names(build("Dinov2Model")) is None
    assert class_names(nn.Identity()) is None


def test_merging_in_a_tower_alone_needs_no_warning_where_its_pooled_output_is_read() -> None:
    tower = build("Dinov2Model")
    policy = Policy(describe(tower), (Pool(0, 12),), proportional_attention=True)

    with pytest.warns(TokensearchWarning, match="alone hands out a merged token once"):
        tokensearch.apply(tower, policy)
    tokensearch.apply(HuggingFaceModel(build("Dinov2Model"), {}), policy)  # warnings are errors
