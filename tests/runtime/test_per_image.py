"""Policies that keep other counts for other images: AS-ViT's inference, at any batch size."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

import tokensearch
from tests.parity.recipe import fill, images
from tests.runtime.test_apply import vit
from tokensearch.errors import ExportError, ModelError, PolicyError
from tokensearch.export import export
from tokensearch.policy import Policy, Threshold
from tokensearch.runtime import count_tokens, describe, with_backend
from tokensearch.runtime.token_state import read_state

REFERENCE = np.load(Path(__file__).parents[1] / "parity" / "reference.npz")


def per_image(model: nn.Module, *steps: Threshold) -> Policy:
    return Policy(describe(model), steps, counts="per_image")


@pytest.fixture(scope="module")
def as_vit() -> nn.Module:
    shape = {"embed_dim": 96, "num_heads": 3, "depth": 12, "num_classes": 100}
    model = timm.create_model("vit_tiny_patch16_224", **shape).double().eval()
    fill(model, seed=7)
    thresholds = zip((4, 7, 10), REFERENCE["as-vit__thresholds"], strict=True)
    steps = (Threshold(block - 1, 150, float(threshold)) for block, threshold in thresholds)
    return tokensearch.apply(model, per_image(model, *steps))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return images(6, seed=11)


@pytest.mark.parametrize("batch", [1, 4, 6])
@torch.inference_mode()
def test_as_vit_gives_the_logits_of_the_authors_code_at_batch_1(
    batch: int, as_vit: nn.Module, pictures: Tensor
) -> None:
    logits = torch.cat([as_vit(chunk) for chunk in pictures.split(batch)])

    np.testing.assert_allclose(logits.numpy(), REFERENCE["as-vit"], rtol=0, atol=1e-9)


@torch.inference_mode()
def test_as_vit_keeps_the_counts_of_the_authors_code(as_vit: nn.Module, pictures: Tensor) -> None:
    counts = count_tokens(as_vit, pictures)

    assert (1 + counts[:, :-1]).tolist() == REFERENCE["as-vit__tokens"][:, 1:].tolist()


HOSTS = {
    "class token": {},
    "registers": {"reg_tokens": 4},
    "average": {"global_pool": "avg"},
    "average without a class token": {"global_pool": "avg", "class_token": False},
    "average and maximum": {"global_pool": "avgmax"},
}


SECOND = {"class_attention_value": 0.125, "mean_attention": 0.11}


def mixed(changes: dict[str, object]) -> nn.Module:
    """A model under thresholds that leave some images much, and others nothing."""
    model = vit(**changes).double()
    second = "class_attention_value" if changes.get("class_token", True) else "mean_attention"
    steps = (Threshold(0, 8, 0.062, "shift"), Threshold(2, 3, SECOND[second], second, at="between"))
    return tokensearch.apply(model, per_image(model, *steps))


@pytest.mark.parametrize("changes", HOSTS.values(), ids=HOSTS)
@torch.inference_mode()
def test_an_image_does_not_depend_on_those_beside_it(changes: dict[str, object]) -> None:
    model, batch = mixed(changes), torch.randn(8, 3, 32, 32).double()
    alone = torch.cat([model(image[None]) for image in batch])
    counts = count_tokens(model, batch)
    order = torch.randperm(8)

    assert len(set(counts[:, -1].tolist())) > 1
    for one in (model(batch), torch.cat([model(part) for part in batch.split(3)])):
        torch.testing.assert_close(one, alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(batch[order]), alone[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("changes", HOSTS.values(), ids=HOSTS)
@torch.inference_mode()
def test_a_threshold_that_nothing_exceeds_leaves_what_the_head_needs(
    changes: dict[str, object],
) -> None:
    model = vit(**changes)
    score = "mean_attention" if not changes.get("class_token", True) else "class_attention"
    tokensearch.apply(model, per_image(model, Threshold(0, 1, 9.0, score)))

    logits = model(torch.randn(3, 3, 32, 32))

    assert logits.isfinite().all()
    needs = "global_pool" in changes
    assert count_tokens(model, torch.randn(3, 3, 32, 32)).tolist() == [[int(needs)] * 4] * 3


@torch.inference_mode()
def test_patches_are_followed_and_features_restored() -> None:
    model, batch = mixed({}), torch.randn(5, 3, 32, 32).double()

    sources = tokensearch.trace(model, batch)

    counts = torch.stack([(source >= 0).sum(dim=1) for source in sources], dim=1)
    assert torch.equal(counts, count_tokens(model, batch))
    policy = tokensearch.runtime.policy_of(model)
    assert policy is not None
    grid = tokensearch.apply(model, policy, dense=True).forward_features(batch)
    alone = torch.cat([model.forward_features(image[None]) for image in batch])
    torch.testing.assert_close(grid, alone, rtol=0, atol=1e-12)


@torch.inference_mode()
def test_dense_features_are_of_the_tokens_that_are_kept_otherwise() -> None:
    model, batch = vit(global_pool="avg"), torch.randn(3, 3, 32, 32)
    policy = per_image(model, Threshold(0, 1, 9.0, "class_attention"))
    tokensearch.apply(model, policy, dense=True)
    kept: list[Tensor] = []
    model.blocks[0].register_forward_hook(lambda _, __, out: kept.append(sizes_of(out)))

    model.forward_features(batch)

    assert torch.equal((kept[0][:, 1:] > 0).sum(dim=(1, 2)), count_tokens(model, batch)[:, 0])


def sizes_of(out: Tensor) -> Tensor:
    tokens = read_state(out)
    assert tokens is not None
    return torch.ones_like(tokens.x[..., :1]) if tokens.size is None else tokens.size


@torch.inference_mode()
def test_a_batch_may_be_empty() -> None:
    assert mixed({})(torch.zeros(0, 3, 32, 32).double()).shape == (0, 5)


@pytest.mark.parametrize("backend", ["compile", "cudagraph", "compile-cudagraph"])
def test_graphs_need_fixed_counts(backend: str) -> None:
    with pytest.raises(PolicyError) as raised:
        with_backend(mixed({}), backend, torch.zeros(1, 3, 32, 32))  # type: ignore[arg-type]

    assert str(raised.value) == (
        f"backend {backend} needs fixed counts, but the policy keeps other counts for other "
        f"images; `tokensearch tune freeze POLICY` makes it static"
    )


def test_exports_need_fixed_counts(tmp_path: Path) -> None:
    with pytest.raises((PolicyError, ExportError), match="tokensearch tune freeze POLICY"):
        export(mixed({}).float(), (1, 3, 32, 32), tmp_path / "x.pt2", format="pt2")


def test_a_head_that_pools_by_attention_is_refused() -> None:
    model = vit(global_pool="map", class_token=False)

    with pytest.raises(ModelError, match="it must read the class token or the average"):
        tokensearch.apply(model, per_image(model, Threshold(0, 4, 0.1, "shift")))
