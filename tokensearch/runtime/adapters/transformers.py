"""Blocks of Hugging Face transformers: ViT, DeiT, DINOv2, DINOv3, CLIP and SigLIP.

All are pre-norm, with separate projections in an attention that calls whichever kernel the
configuration names. What differs are the names of their parts.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.adapters.attention import (
    Attended,
    HostAttention,
    join,
    rotate,
    sdpa,
    split,
)


class Parts(NamedTuple):
    """What a block calls its modules; empty where it has none."""

    norm1: str
    attn: str
    norm2: str
    scales: tuple[str, str] = ("", "")  # LayerScale of either half
    drop: str = ""  # dropout, or stochastic depth, after either half


PARTS = {
    "ViTLayer": Parts("layernorm_before", "attention", "layernorm_after", drop="dropout"),
    "Dinov2Layer": Parts(
        "norm1", "attention", "norm2", ("layer_scale1", "layer_scale2"), "drop_path"
    ),
    "CLIPEncoderLayer": Parts("layer_norm1", "self_attn", "layer_norm2"),
}

# Arguments of a pass that reach every block and change nothing of what it computes.
_WITHOUT_EFFECT = frozenset(
    {"interpolate_pos_encoding", "num_items_in_batch", "output_hidden_states", "use_cache"}
)


def attend_block(
    parts: Parts,
    block: Any,
    x: Tensor,
    *,
    bias: Tensor | None,
    queries: int | None,
    rope: Tensor | None,
) -> Attended:
    """Carry out the first half of a block, x + drop(scale(attention(norm(x))))."""
    attn = getattr(block, parts.attn)
    inner = _attend(attn, getattr(block, parts.norm1)(x), bias=bias, queries=queries, rope=rope)
    out = _end_half(parts, block, inner.x, 0)
    return inner._replace(x=x[:, : out.shape[1]] + out)


def finish_block(parts: Parts, block: Any, x: Tensor) -> Tensor:
    """Carry out the second half of a block, x + drop(scale(mlp(norm(x))))."""
    return x + _end_half(parts, block, block.mlp(getattr(block, parts.norm2)(x)), 1)


def read_call(
    parts: Parts,
    block: nn.Module,
    attention_mask: Tensor | None = None,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **named: Any,
) -> Tensor | None:
    """Return the rotations that a pass gives its blocks, sines then cosines, (G, 2 D) or None.

    ModelError where a pass wants what an opened block does not do.
    """
    if attention_mask is not None:
        raise ModelError("a model that follows a policy takes no attention mask")
    wanted = named.pop("output_attentions", None)
    if getattr(block, parts.attn).config.output_attentions if wanted is None else wanted:
        raise ModelError(
            "a model that follows a policy keeps no attention maps; leave output_attentions out, "
            "or remove the policy first"
        )
    for name, value in named.items():
        if name not in _WITHOUT_EFFECT and value is not None and value is not False:
            raise ModelError(f"a model that follows a policy takes no {name}; leave it out")
    if position_embeddings is None:
        return None
    cosine, sine = position_embeddings
    return torch.cat([sine, cosine], dim=-1)


def call_block(block: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
    """Run the host's own block, with rotations as `read_call` returns them."""
    rotations: dict[str, Any] = {}
    if rope is not None:
        sine, cosine = rope.chunk(2, dim=-1)
        rotations["position_embeddings"] = cosine, sine
    out: Tensor = block(x, attention_mask=None, **rotations)
    return out


def bind(function: Any, layer: str) -> Any:
    """Return a function of this module for the layers that are built like `layer`."""
    return partial(function, PARTS[layer])


def _attend(
    attn: HostAttention, x: Tensor, *, bias: Tensor | None, queries: int | None, rope: Tensor | None
) -> Attended:
    """Self-attention with projections of its own for queries, keys and values.

    The arguments are those of `attention.attend`.
    """
    heads = attn.num_attention_heads if hasattr(attn, "num_attention_heads") else attn.num_heads
    q, k, v = attn.q_proj(x[:, :queries]), attn.k_proj(x), attn.v_proj(x)
    q, k, v = split(q, heads), split(k, heads), split(v, heads)
    if rope is not None:
        prefix = x.shape[1] - rope.shape[-2]
        q, k = (rotate(part, rope, prefix=prefix, half=True).to(v.dtype) for part in (q, k))
    outputs = sdpa(attn, q, k, v, bias=bias)
    project = attn.o_proj if hasattr(attn, "o_proj") else attn.out_proj
    return Attended(project(join(outputs)), q, k, v, outputs)


def _end_half(parts: Parts, block: Any, x: Tensor, half: int) -> Tensor:
    for name in (parts.scales[half], parts.drop):
        if name:
            x = getattr(block, name)(x)
    return x
