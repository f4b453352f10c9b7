"""Attention spelt out, since scores and matching need what lies inside it.

timm's `Attention`, `AttentionRope`, `EvaAttention` and `DiffAttention`. The host's own submodules
do the work, so q/k-norm, output norm, gates and dropout stay the host's business.
`equivalence.py` holds the outcome against the host's own forward before it is used.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokensearch.ops import attend_masked, attend_with_bias, is_attention_fused

# timm is untyped: an attention is what `equivalence.py` shows it to be.
HostAttention = Any


class Attended(NamedTuple):
    """What an attention half leaves behind for scores and matching. Q queries: all, or the first.

    Differential attention has its heads in pairs in `queries` and `keys`: H = 2 H'.
    """

    x: Tensor  # (B, Q, C) residual stream after attention
    queries: Tensor  # (B, H, Q, D) as attention saw them: normalised, rotated
    keys: Tensor  # (B, H, T, D)
    values: Tensor  # (B, H', T, D')
    outputs: Tensor  # (B, H', Q, D') of each head, before the projection
    contrast: Tensor | None = None  # scalar, of differential attention


def attend(
    attn: HostAttention, x: Tensor, *, bias: Tensor | None, queries: int | None, rope: Tensor | None
) -> Attended:
    """Self-attention as the host computes it; `x` of the result is the output, no residual yet.

    x        (B, T, C)      normalised, as the host's attention takes it
    bias     (B, 1, 1, T)   added to the logits of every query
    queries  compute the output of the first `queries` tokens alone; None: of all
    rope     rotations of the patch tokens: sines, then cosines, along the last dimension
    """
    q, k, v = _project(attn, x, queries)
    if rope is not None:
        half, prefix = bool(getattr(attn, "rotate_half", False)), attn.num_prefix_tokens
        q = rotate(q, rope, prefix=prefix, half=half).to(v.dtype)
        k = rotate(k, rope, prefix=prefix, half=half).to(v.dtype)
    groups = getattr(attn, "num_kv_groups", 1)
    if groups > 1:
        k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
    outputs = sdpa(attn, q, k, v, bias=bias)
    return Attended(_output(attn, outputs, x[:, :queries]), q, k, v, outputs)


def attend_differential(
    attn: HostAttention, x: Tensor, *, bias: Tensor | None, queries: int | None, rope: Tensor | None
) -> Attended:
    """Differential attention (arXiv:2410.05258) as timm's `DiffAttention` computes it."""
    del rope  # it knows none
    q, k, v = attn.qkv(x).chunk(3, dim=-1)
    inner = attend_contrast(attn, (q[:, :queries], k, v), bias)
    return inner._replace(x=_output(attn, inner.outputs, x[:, :queries]))


def attend_contrast(
    attn: HostAttention, projected: tuple[Tensor, Tensor, Tensor], bias: Tensor | None
) -> Attended:
    """Difference of two attentions over the same values; `x` of the result is unset (q)."""
    (q, k, v), heads = projected, attn.num_heads
    queries, keys = (split(part, 2 * heads) for part in (q, k))
    queries, keys, values = attn.q_norm(queries), attn.k_norm(keys), split(v, heads)
    contrast = attn._compute_lambda().type_as(queries)
    pairs = zip(
        queries.unflatten(1, (-1, 2)).unbind(2), keys.unflatten(1, (-1, 2)).unbind(2), strict=True
    )
    first, second = (sdpa(attn, one, other, values, bias=bias) for one, other in pairs)
    outputs = attn.sub_norm(first - contrast * second) * (1 - attn.lambda_init)
    return Attended(q, queries, keys, values, outputs, contrast)


def sdpa(attn: HostAttention, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None) -> Tensor:
    """Fused attention with the host's dropout: (B, H, Q, D')."""
    dropout = _dropout_of(attn) if attn.training else 0.0
    if bias is not None and bias.requires_grad:
        return attend_masked(q, k, v, bias, dropout=dropout)
    if bias is not None and not dropout and is_attention_fused(q, k, v, bias):
        return attend_with_bias(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)


def _dropout_of(attn: HostAttention) -> float:
    """Share of attention that is dropped: of timm's module, or a number, as in transformers."""
    if hasattr(attn, "attn_drop"):
        return float(attn.attn_drop.p)
    return float(attn.attention_dropout if hasattr(attn, "attention_dropout") else attn.dropout)


def split(x: Tensor, heads: int) -> Tensor:
    """(B, T, H * D) -> (B, H, T, D)."""
    parts: Tensor = x.unflatten(-1, (heads, -1))  # type: ignore[no-untyped-call]
    return parts.transpose(1, 2)


def join(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H * D)."""
    return x.transpose(1, 2).flatten(2)


def rotate(x: Tensor, rope: Tensor, *, prefix: int, half: bool) -> Tensor:
    """Rotate patch tokens by their positions; prefix tokens have none.

    x     (B, H, T or P, D)
    rope  broadcasts to (B, H, N, 2 D): sines, then cosines
    half  pairs are (d, d + D/2) instead of neighbours
    """
    patches = x[:, :, prefix:]
    if patches.shape[2] == 0:  # prefix queries alone
        return x
    sine, cosine = rope.chunk(2, dim=-1)
    if half:
        first, second = patches.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        turned = torch.stack([-patches[..., 1::2], patches[..., ::2]], -1).flatten(-2)
    return torch.cat([x[:, :, :prefix], patches * cosine + turned * sine], dim=2)


def _project(attn: HostAttention, x: Tensor, queries: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of the first `queries` tokens, keys and values of all, q/k-norm included."""
    heads = attn.num_heads
    if attn.qkv is None:
        parts = (attn.q_proj(x[:, :queries]), attn.k_proj(x), attn.v_proj(x))
    elif queries is not None and is_its_weight(attn.qkv):
        parts = _two_part(attn.qkv.weight, _bias(attn), x, queries)
    else:
        q, k, v = _fused(attn, x)
        return attn.q_norm(q[:, :, :queries]), attn.k_norm(k), v
    key_heads = getattr(attn, "num_kv_heads", heads)
    q, k, v = split(parts[0], heads), split(parts[1], key_heads), split(parts[2], key_heads)
    return attn.q_norm(q), attn.k_norm(k), v


def is_its_weight(layer: nn.Module) -> bool:
    """Whether a layer does what its weight says, so that the weight may be used in parts.

    Subclasses do more, hooks change or compute (`torch.nn.utils.prune`), and a weight that is a
    subclass of Tensor (quantised, sharded) or sparse need not have rows.
    """
    return (
        type(layer) is nn.Linear
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
        and not hasattr(layer.weight, "__tensor_flatten__")
        and layer.weight.layout == torch.strided
    )


def _fused(attn: HostAttention, x: Tensor) -> tuple[Tensor, ...]:
    """All three projections in one product; `EvaAttention` keeps its bias apart."""
    apart = getattr(attn, "q_bias", None) is not None
    whole = F.linear(x, attn.qkv.weight, _bias(attn)) if apart else attn.qkv(x)
    parts: Tensor = whole.unflatten(-1, (3, attn.num_heads, -1))
    return parts.permute(2, 0, 3, 1, 4).unbind(0)


def _two_part(
    weight: Tensor, bias: Tensor | None, x: Tensor, queries: int
) -> tuple[Tensor, Tensor, Tensor]:
    width = weight.shape[0] // 3
    q = F.linear(x[:, :queries], weight[:width], None if bias is None else bias[:width])
    k, v = F.linear(x, weight[width:], None if bias is None else bias[width:]).chunk(2, dim=-1)
    return q, k, v


def _bias(attn: HostAttention) -> Tensor | None:
    if getattr(attn, "q_bias", None) is not None:
        return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    bias: Tensor | None = attn.qkv.bias
    return bias


def _output(attn: HostAttention, outputs: Tensor, x: Tensor) -> Tensor:
    """From the heads' outputs to the residual stream: norm, gate, projection."""
    mixed = attn.norm(join(outputs))
    gate = getattr(attn, "gate", None)  # since timm 1.0.27
    if gate is not None:
        mixed = mixed * gate(x).sigmoid()
    out: Tensor = attn.proj_drop(attn.proj(mixed))
    return out
