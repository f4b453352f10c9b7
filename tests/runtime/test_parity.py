"""Presets by name against the logits and token counts of the authors' own code."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import tokensearch
from tests.parity.recipe import fill, images

REFERENCE = np.load(Path(__file__).parents[1] / "parity" / "reference.npz")
NAMES = (
    "none",
    "tome-r13",
    "tome-dec13",
    "evit-0.7",
    "evit-0.7-unfused",
    "ppt-r50",
    "ppt-r50-prune",
    "diffrate-s-2.9",
)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    shape = {"embed_dim": 96, "num_heads": 3, "depth": 12, "num_classes": 100}
    model = timm.create_model("vit_tiny_patch16_224", **shape).double().eval()
    fill(model, seed=7)
    return model


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return images(6, seed=11)


@pytest.fixture
def seen(model: nn.Module) -> Iterator[list[int]]:
    """Tokens that each block's MLP was given."""
    counts: list[int] = []
    hooks = [
        block.mlp.register_forward_pre_hook(lambda _, given: counts.append(given[0].shape[1]))
        for block in model.blocks
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_the_logits_of_the_authors_code(
    name: str, model: nn.Module, pictures: Tensor, seen: list[int]
) -> None:
    tokensearch.apply(model, name)
    seen.clear()  # what apply tried

    with torch.inference_mode():
        logits = model(pictures)

    np.testing.assert_allclose(logits.numpy(), REFERENCE[name], rtol=0, atol=1e-9)
    assert seen == REFERENCE[f"{name}__tokens"].tolist()


def test_every_reference_is_tested_or_is_for_a_method_of_its_own() -> None:
    references = {name for name in REFERENCE.files if "__" not in name}

    assert references - {*NAMES} == {"as-vit"}  # per image: test_per_image.py
