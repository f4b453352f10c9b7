import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import tokensearch
from tokensearch.doctor.models import OTHERS, looked_at, names, pictures, tiny, tried
from tokensearch.errors import ModelError
from tokensearch.models import HOSTS
from tokensearch.ops import random_order
from tokensearch.policy import Policy, Pool, Prune
from tokensearch.runtime import describe

# Words of a name that are about size: `tiny` builds every model in one size. Others, like giant and
# so400m, now and then mean another MLP as well.
SIZE = re.compile(r"_(tiny|small|medium|betwixt|base|large|huge|gigantic|patch\d+|\d{3})(?=_|$)")


def one_of_each_design() -> Iterator[Any]:
    """Every name; all but the first of each design are slow."""
    designs: set[str] = set()
    for name in names(HOSTS):
        design = SIZE.sub("", name)
        yield pytest.param(name, marks=[pytest.mark.slow] if design in designs else [])
        designs.add(design)


@pytest.mark.parametrize("name", list(one_of_each_design()))
def test_every_plain_vit_of_timm_follows_policies(name: str) -> None:
    found = tried(name)

    assert (found.state, found.note) == ("works", "")


def test_the_walk_leaves_no_vit_of_timm_out() -> None:
    # VisionTransformer and its distilled form, Eva, NaFlexVit, in timm 1.0.31; more in later ones.
    assert len(names(HOSTS)) >= 193 + 65 + 14


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("beit_base_patch16_224", "adds a bias for each pair of positions"),
        ("vit_relpos_base_patch16_224", "adds a bias for each pair of positions"),
        ("samvit_base_patch16", "runs in windows of the whole grid"),
        ("swin_tiny_patch4_window7_224", "a SwinTransformer has stages, whose windows"),
        ("swinv2_tiny_window8_256", "a SwinTransformerV2 has stages, whose windows"),
    ],
)
def test_models_with_windows_or_pairwise_biases_are_refused_with_the_reason(
    name: str, reason: str
) -> None:
    found = looked_at(name)

    assert found.state == "refused"
    assert reason in found.note


@pytest.mark.slow
def test_no_model_of_another_kind_is_taken_by_mistake() -> None:
    assert {looked_at(name).state for name in names(OTHERS)} == {"refused"}


ROTARY = {
    "one table": "vit_small_patch16_rope_ape_224",
    "one table for each block and head": "vit_small_patch16_rope_mixed_224",
    "half rotations (DINOv3)": "vit_small_patch16_dinov3",
    "separate projections": "eva02_tiny_patch14_224",
}


@pytest.mark.parametrize("name", ROTARY.values(), ids=ROTARY)
def test_positions_travel_with_the_tokens(name: str) -> None:
    model = tiny(name).double()
    spec, x = describe(model), pictures(model).double()
    cpu, prefix = torch.device("cpu"), spec.prefix_tokens
    kept = random_order(1, spec.patch_tokens, seed=0, device=cpu)[0].argsort(descending=True)
    kept = kept[:7].sort().values

    with torch.inference_mode(), tokensearch.applied(model, Policy(spec, (Prune(0, 7, "random"),))):
        found = model.forward_features(x)
    with torch.inference_mode():  # a prune after attention is a prune after the block
        features, rope = model._pos_embed(model.patch_embed(x))
        features = model.norm_pre(features)
        for place, block in enumerate(model.blocks):
            turned = rope[place] if getattr(model, "rope_mixed", False) else rope
            features = block(features, rope=turned if place == 0 else turned[..., kept, :])
            if place == 0:
                features = torch.cat([features[:, :prefix], features[:, prefix:][:, kept]], dim=1)
        expected = model.norm(features)

    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_merged_token_keeps_the_position_of_the_token_that_it_joined() -> None:
    model = tiny("vit_small_patch16_dinov3")
    spec = describe(model)
    policy = Policy(spec, (Pool(0, 9), Pool(1, 5)), proportional_attention=True)

    with torch.inference_mode(), tokensearch.applied(model, policy):
        assert model(pictures(model)).isfinite().all()


def gap(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 3}
    model = timm.models.VisionTransformer(**{**shape, "global_pool": "avg", **changes})
    return model.double().eval()


@pytest.mark.parametrize("changes", [{}, {"fc_norm": False}, {"pool_include_prefix": True}])
def test_an_average_counts_a_merged_token_as_many(changes: dict[str, object]) -> None:
    # Merged in the last block, tokens meet no attention any more: what is left is the average.
    model = gap(**changes)
    x = pictures(model).double()
    model.blocks[-1].mlp = nn.Identity()  # linear, so that the mean of outputs is that of inputs
    model.blocks[-1].norm2 = nn.Identity()
    model.norm = nn.Identity()

    with torch.inference_mode():
        whole = model(x)
        with tokensearch.applied(model, Policy(describe(model), (Pool(2, 9),))):
            torch.testing.assert_close(model(x), whole, rtol=1e-12, atol=1e-12)


def test_an_average_after_the_last_norm_goes_by_size_too() -> None:
    model = gap(fc_norm=False)
    x = pictures(model).double()
    policy = Policy(describe(model), (Pool(0, 9),), proportional_attention=True)

    with torch.inference_mode(), tokensearch.applied(model, policy):
        sources = tokensearch.trace(model, x)[-1]
        found = model.forward_head(model.forward_features(x), pre_logits=True)
    with torch.inference_mode(), tokensearch.applied(model, policy, dense=True):
        full = model.forward_features(x)[:, 1:].mean(dim=1)

    assert int(sources.max()) + 1 == 9
    torch.testing.assert_close(found, full, rtol=1e-12, atol=1e-12)


def test_an_attention_pooled_head_reads_what_is_left() -> None:
    model = tiny("vit_base_patch16_siglip_224")

    with torch.inference_mode():
        tokensearch.apply(model, Policy(describe(model), (Prune(0, 9, "mean_attention"),)))
        assert model(pictures(model)).shape == (2, 5)


def test_differential_attention_scores_by_the_difference() -> None:
    model = tiny("vit_dwee_patch16_reg1_gap_256").double()
    attn, spec = model.blocks[0].attn, describe(model)
    heads, width = attn.num_heads, attn.head_dim
    x = torch.randn(1, spec.tokens, spec.width, dtype=torch.float64)

    with torch.inference_mode():
        q, k, _ = attn.qkv(model.blocks[0].norm1(x)).chunk(3, dim=-1)
        q, k = (part.unflatten(-1, (2 * heads, width)).transpose(1, 2) for part in (q, k))
        q, k = attn.q_norm(q), attn.k_norm(k)
        both = _patch_mean(q, spec.prefix_tokens) @ k.transpose(2, 3)
        both = (both / math.sqrt(width)).softmax(-1)[:, :, 0].unflatten(1, (heads, 2))
        row = (both[:, :, 0] - attn._compute_lambda() * both[:, :, 1]).mean(1)
        expected = row[0, spec.prefix_tokens :].argsort(descending=True)[:4].sort().values

        with tokensearch.applied(model, Policy(spec, (Prune(0, 4, "mean_attention"),))):
            kept = _kept(model, x)

    assert kept.tolist() == expected.tolist()


def _patch_mean(q: Tensor, prefix: int) -> Tensor:
    return q[:, :, prefix:].mean(dim=2, keepdim=True)


def _kept(model: nn.Module, x: Tensor) -> Tensor:
    """Patches that block 0 keeps of the features x."""
    model.patch_embed.register_forward_hook(lambda *_: x[:, describe(model).prefix_tokens :])
    model._pos_embed = lambda _: x
    sources = tokensearch.trace(model, pictures(model, count=1).to(x.dtype))
    return (sources[0][0] >= 0).nonzero().flatten()


def test_a_model_that_makes_new_features_between_blocks_is_told() -> None:
    model = gap(global_pool="token")
    policy = Policy(describe(model), (Pool(0, 9),), proportional_attention=True)
    tokensearch.apply(model, policy)
    model.blocks[0].register_forward_hook(lambda _, __, out: out * 1.0)

    with pytest.raises(ModelError, match="block 1 needs what block 0 knew of its tokens"):
        model(pictures(model).double())
