"""How one family of host blocks is opened between attention and MLP.

timm's `Block` around its `Attention` (DeiT, distilled DeiT, AugReg ViT, registers). The two halves
call the host's own submodules, so LayerScale, q/k-norm, gates, output norm and drop-path stay the
host's business; `proof.py` holds the halves against the host's own forward before they are used.
"""

from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

# timm is untyped: a block is what `proof.py` shows it to be.
HostBlock = Any
HostAttention = Any


class Attended(NamedTuple):
    """What an attention half leaves behind for scores and matching."""

    x: Tensor  # (B, T, C) residual stream after attention; (B, P, C) when only the prefix asked
    class_query: Tensor  # (B, H, 1, D)
    keys: Tensor  # (B, H, T, D) as attention saw them, after k-norm


def attention_half(
    block: HostBlock, x: Tensor, *, bias: Tensor | None = None, queries: int | None = None
) -> Attended:
    """First half of a `Block`: x + attention(norm(x)).

    x        (B, T, C)
    bias     (B, 1, 1, T)   added to the logits of every query
    queries  compute the output of the first `queries` tokens alone; None: of all
    """
    attn: HostAttention = block.attn
    inner = block.norm1(x)
    q, k, v = _project(attn, inner, queries)
    dropout = attn.attn_drop.p if attn.training else 0.0
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
    mixed = attn.norm(mixed.transpose(1, 2).flatten(2))
    gate = getattr(attn, "gate", None)  # since timm 1.0.27
    if gate is not None:
        mixed = mixed * gate(inner[:, :queries]).sigmoid()
    out = attn.proj_drop(attn.proj(mixed))
    return Attended(x[:, :queries] + block.drop_path1(block.ls1(out)), q[:, :, :1], k)


def mlp_half(block: HostBlock, x: Tensor) -> Tensor:
    """Second half of a `Block`: x + mlp(norm(x)). x (B, T, C) -> (B, T, C)."""
    out: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return out


def _project(attn: HostAttention, x: Tensor, queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the first `queries` tokens, keys and values of all: (B, H, Q or T, D) each."""
    heads = attn.num_heads
    if queries is None:
        parts = attn.qkv(x).chunk(3, dim=-1)
    else:
        weight, bias = attn.qkv.weight, attn.qkv.bias
        inner = weight.shape[0] // 3
        parts = (
            F.linear(x[:, :queries], weight[:inner], None if bias is None else bias[:inner]),
            *F.linear(x, weight[inner:], None if bias is None else bias[inner:]).chunk(2, dim=-1),
        )
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts)
    return attn.q_norm(q), attn.k_norm(k), v


def family(block: nn.Module) -> str | None:
    """Name of the block family that these halves fit, or None."""
    names = (type(block).__name__, type(getattr(block, "attn", None)).__name__)
    return "Block" if names == ("Block", "Attention") else None
