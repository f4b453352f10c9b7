"""A model of transformers, and timm's model of the same design with its weights."""

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tests.runtime.towers import build

TIMM = {"depth": 4, "embed_dim": 48, "num_heads": 3, "img_size": 32, "patch_size": 8}
TWICE = {"mlp_ratio": 2}

# transformers' class -> its configuration, timm's name and arguments
TWINS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "ViTForImageClassification": (
        {"layer_norm_eps": 1e-6},
        "vit_small_patch16_224",
        {**TWICE, "num_classes": 7},
    ),
    "DeiTForImageClassificationWithTeacher": (
        {"layer_norm_eps": 1e-6},
        "deit_small_distilled_patch16_224",
        {**TWICE, "num_classes": 7},
    ),
    "Dinov2Model": (TWICE, "vit_small_patch14_dinov2", TWICE),
    "Dinov2WithRegistersModel": (
        {**TWICE, "use_swiglu_ffn": False},
        "vit_small_patch14_reg4_dinov2",
        TWICE,
    ),
    "DINOv3ViTModel": (
        {"use_gated_mlp": False, "query_bias": False, "value_bias": False},
        "vit_small_patch16_dinov3",
        {**TWICE, "global_pool": "token"},
    ),
    "CLIPVisionModelWithProjection": (
        {},
        "vit_base_patch16_clip_quickgelu_224",
        {**TWICE, "num_classes": 24},
    ),
    "SiglipVisionModel": ({"hidden_act": "gelu"}, "vit_base_patch16_siglip_224", TWICE),
}

# transformers' words -> timm's, in the order in which they are replaced
WORDS = {
    "vision_model.": "",
    "vit.": "",
    "deit.": "",
    "encoder.layers.": "blocks.",
    "encoder.layer.": "blocks.",
    "model.layer.": "blocks.",
    "layers.": "blocks.",
    "patch_embeddings.projection.": "patch_embed.proj.",
    "patch_embeddings.": "patch_embed.proj.",
    "embeddings.": "",
    "patch_embedding.": "patch_embed.proj.",
    "register_tokens": "reg_token",
    "distillation_token": "dist_token",
    "position_embeddings": "pos_embed",
    "position_embedding.weight": "pos_embed",
    "class_embedding": "cls_token",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layer_norm": "norm",
    "pre_layrnorm": "norm_pre",
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_": "attn_pool.qkv.",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp": "attn_pool.mlp",
    "post_layernorm": "norm",
    "layernorm": "norm",
    "self_attn.": "attn.",
    "attention.": "attn.",
    "o_proj": "proj",
    "out_proj": "proj",
    "up_proj": "fc1",
    "down_proj": "fc2",
    "distillation_classifier": "head_dist",
    "cls_classifier": "head",
    "classifier": "head",
    "visual_projection": "head",
}


def make_twins(name: str, *, attention: str = "sdpa") -> tuple[Any, nn.Module]:
    """Return transformers' model and timm's, with the same weights, in double precision."""
    changes, timms, options = TWINS[name]
    theirs = build(name, attention=attention, **changes).double()
    ours: Any = timm.create_model(timms, **{**TIMM, **options}).double().eval()
    wanted = ours.state_dict()
    state = _converted(theirs.state_dict(), plain="blocks.0.gamma_1" in wanted)
    if name == "CLIPVisionModelWithProjection":
        state["head.bias"] = torch.zeros(24)
    for key, value in wanted.items():
        state[key] = state[key].reshape(value.shape)
    ours.load_state_dict({key: state[key] for key in wanted})
    return theirs, ours


def _converted(state: Mapping[str, Tensor], *, plain: bool) -> dict[str, Tensor]:
    """Rename, put projections together, and give positions as timm has them."""
    out = {_renamed(name, plain=plain): value for name, value in state.items()}
    for name in [name for name in out if ".q_proj." in name]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in out for part in parts):
            out[name.replace("q_proj", "qkv")] = torch.cat([out[part] for part in parts])
    for kind in ("weight", "bias"):
        if f"attn_pool.qkv.{kind}" in out:
            q, kv = out[f"attn_pool.qkv.{kind}"].split([48, 96])
            out |= {f"attn_pool.q.{kind}": q, f"attn_pool.kv.{kind}": kv}
    if "reg_token" in out and "pos_embed" in out:  # timm adds none to the class token there
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:]
    return out


def _renamed(name: str, *, plain: bool) -> str:
    for word, other in WORDS.items():
        name = name.replace(word, other)
    for index in (1, 2):
        scale = f"gamma_{index}" if plain else f"ls{index}.gamma"
        name = name.replace(f"layer_scale{index}.lambda1", scale)
    return name
