"""The families of blocks that can be opened, and why others cannot.

A family is two halves. `attend` is everything up to where tokens may be reduced, `finish` the rest.
Blocks whose attention and MLP run side by side can only be reduced after both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.adapters import transformers
from tokensearch.runtime.adapters.attention import (
    Attended,
    attend,
    attend_contrast,
    attend_differential,
    join,
    sdpa,
    split,
)

HostBlock = Any  # timm is untyped: a block is what `equivalence.py` shows it to be


def _read_call(
    block: HostBlock, rope: Tensor | None = None, attn_mask: Tensor | None = None, **unused: Any
) -> Tensor | None:
    """Return the rotations that timm's models give their blocks; ModelError for a mask."""
    del block
    if attn_mask is not None or any(unused.values()):
        raise ModelError("a model that follows a policy takes no attention mask")
    return rope


def _call(block: HostBlock, x: Tensor, rope: Tensor | None) -> Tensor:
    out: Tensor = block(x) if rope is None else block(x, rope=rope)
    return out


class BlockFamily(NamedTuple):
    """How one family of blocks is opened."""

    name: str
    attend: Callable[..., Attended]  # (block, x, *, bias, queries, rope)
    finish: Callable[[HostBlock, Tensor], Tensor]
    second: str | None  # module that the host's own block calls first of what `finish` does
    norm: str | None = None  # module whose output attention reads; None: it reads the features
    # Rotations among what a block is given beside features; ModelError for what is not honoured.
    read_call: Callable[..., Tensor | None] = _read_call
    call: Callable[[HostBlock, Tensor, Tensor | None], Tensor] = _call  # the host's own forward


def family_of(block: nn.Module) -> BlockFamily | None:
    """Return the family that opens `block`, or None."""
    if explain_refusal(block) is not None:
        return None
    return _FAMILIES.get((type(block).__name__, type(find_attention(block)).__name__))


def find_norm(block: nn.Module) -> nn.Module | None:
    """Return the norm whose output the attention of a block reads, the first of several, if any."""
    family = family_of(block)
    return None if family is None or family.norm is None else block.get_submodule(family.norm)


def explain_refusal(block: nn.Module) -> str | None:
    """Say why a block that looks like others cannot be opened, or None."""
    attn = find_attention(block)
    for kind in type(block).__mro__:
        if kind.__name__ in _REWRITTEN:
            return _REWRITTEN[kind.__name__]
    theirs = type(block).__module__.startswith("transformers.")
    if theirs and attn is not None and not hasattr(attn, "q_proj"):
        return "its attention is laid out as in transformers before 5.18; take that or a later one"
    if any(getattr(attn, name, None) is not None for name in _POSITION_BIASES):
        return (
            "its attention adds a bias for each pair of positions, which merged tokens do not have"
        )
    if getattr(block, "window_size", 0) or getattr(attn, "use_rel_pos", False):
        return (
            "its attention runs in windows of the whole grid, which no longer exist once tokens go"
        )
    return None


# What stands in the place of a block whose weights or code were converted, by its class.
_REWRITTEN = {
    "OptimizedModule": (
        "torch.compile was called on it alone; call it on the whole model, or block.compile()"
    ),
    "FSDPModule": "its weights are sharded; apply the policy before fully_shard",
    "FullyShardedDataParallel": "its weights are sharded; apply the policy before that",
    "CheckpointWrapper": "it is wrapped for checkpointing; apply the policy before that",
}
_POSITION_BIASES = ("relative_position_bias_table", "rel_pos", "relative_position_index")


def find_attention(block: nn.Module) -> Any:
    """Return the attention of a block, the first of several; None where it attends by itself."""
    attns = getattr(block, "attns", None)
    if attns:
        return attns[0].attn
    return next((getattr(block, name) for name in _ATTENTIONS if hasattr(block, name)), None)


_ATTENTIONS = ("attn", "attention", "self_attn")


def _heads(block: HostBlock, x: Tensor, **rest: Any) -> Attended:
    differential = type(block.attn).__name__ == "DiffAttention"
    return (attend_differential if differential else attend)(block.attn, x, **rest)


def _attend_prenorm(block: HostBlock, x: Tensor, **rest: Any) -> Attended:
    """Blocks with LayerScale modules: x + ls1(attn(norm1(x)))."""
    inner = _heads(block, block.norm1(x), **rest)
    return _add(x, inner, block.drop_path1(block.ls1(inner.x)))


def _finish_prenorm(block: HostBlock, x: Tensor) -> Tensor:
    out: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return out


def _attend_eva(block: HostBlock, x: Tensor, **rest: Any) -> Attended:
    """Blocks with LayerScale parameters: x + gamma_1 * attn(norm1(x))."""
    inner = _heads(block, block.norm1(x), **rest)
    out = inner.x if block.gamma_1 is None else block.gamma_1 * inner.x
    return _add(x, inner, block.drop_path1(out))


def _finish_eva(block: HostBlock, x: Tensor) -> Tensor:
    out = block.mlp(block.norm2(x))
    whole: Tensor = x + block.drop_path2(out if block.gamma_2 is None else block.gamma_2 * out)
    return whole


def _attend_postnorm(block: HostBlock, x: Tensor, **rest: Any) -> Attended:
    """Norm after each half: x + norm1(attn(x))."""
    inner = _heads(block, x, **rest)
    return _add(x, inner, block.drop_path1(block.norm1(inner.x)))


def _finish_postnorm(block: HostBlock, x: Tensor) -> Tensor:
    out: Tensor = x + block.drop_path2(block.norm2(block.mlp(x)))
    return out


def _attend_things(block: HostBlock, x: Tensor, **rest: Any) -> Attended:
    """Several attentions side by side (arXiv:2203.09795): their heads are taken as one set."""
    parts = [attend(branch.attn, branch.norm(x), **rest) for branch in block.attns]
    outs = [
        branch.drop_path(branch.ls(part.x)) for branch, part in zip(block.attns, parts, strict=True)
    ]
    inner = Attended(
        x,
        torch.cat([part.queries for part in parts], dim=1),
        torch.cat([part.keys for part in parts], dim=1),
        torch.cat([part.values for part in parts], dim=1),
        torch.cat([part.outputs for part in parts], dim=1),
    )
    return _add(x, inner, torch.stack(outs).sum(dim=0))


def _finish_things(block: HostBlock, x: Tensor) -> Tensor:
    out: Tensor = x + torch.stack([branch(x) for branch in block.ffns]).sum(dim=0)
    return out


def _attend_scaling(
    block: HostBlock, x: Tensor, *, bias: Tensor | None, queries: int | None, rope: Tensor | None
) -> Attended:
    """Attention and MLP side by side (arXiv:2302.05442): nothing is left for `finish`."""
    del rope  # they know none
    parts = block.in_proj(block.in_norm(x)).split(block.in_split, dim=-1)
    hidden, q, k, v = parts[0][:, :queries], parts[1][:, :queries], parts[2], parts[3]
    if block.mlp_bias is not None:
        hidden = hidden + block.mlp_bias
    if hasattr(block, "sub_norm"):
        inner = attend_contrast(block, (q, k, v), bias)
    else:
        heads = block.num_heads
        queries_, keys = block.q_norm(split(q, heads)), block.k_norm(split(k, heads))
        values = split(v, heads)
        inner = Attended(q, queries_, keys, values, sdpa(block, queries_, keys, values, bias=bias))
    mixed, hidden = join(inner.outputs), block.mlp_drop(block.mlp_act(hidden))
    if block.out_proj is not None:
        out = block.out_proj(torch.cat([mixed, hidden], dim=-1))
    else:
        out = block.attn_out_proj(mixed) + block.mlp_out_proj(hidden)
    return _add(x, inner, block.drop_path(block.ls(out)))


def _nothing(block: HostBlock, x: Tensor) -> Tensor:
    del block
    return x


def _add(x: Tensor, inner: Attended, out: Tensor) -> Attended:
    """Put the residual stream in."""
    return inner._replace(x=x[:, : out.shape[1]] + out)


_PLAIN = BlockFamily("Block", _attend_prenorm, _finish_prenorm, "norm2", "norm1")
_EVA = BlockFamily("EvaBlock", _attend_eva, _finish_eva, "norm2", "norm1")
_POST = BlockFamily("ResPostBlock", _attend_postnorm, _finish_postnorm, "mlp")
_THINGS = BlockFamily(
    "ParallelThingsBlock", _attend_things, _finish_things, "ffns.0", "attns.0.norm"
)
_SCALING = BlockFamily("ParallelScalingBlock", _attend_scaling, _nothing, None, "in_norm")


def _of_transformers(layer: str) -> BlockFamily:
    return BlockFamily(
        layer,
        transformers.bind(transformers.attend_block, layer),
        transformers.bind(transformers.finish_block, layer),
        transformers.PARTS[layer].norm2,
        transformers.PARTS[layer].norm1,
        transformers.bind(transformers.read_call, layer),
        transformers.call_block,
    )


_VIT, _DINO, _CLIP = map(_of_transformers, ("ViTLayer", "Dinov2Layer", "CLIPEncoderLayer"))
# Block and attention class -> family. NoneType: the block attends by itself.
_FAMILIES: dict[tuple[str, str], BlockFamily] = {
    ("Block", "Attention"): _PLAIN,
    ("Block", "DiffAttention"): _PLAIN,
    ("ResPostBlock", "Attention"): _POST,
    ("EvaBlock", "EvaAttention"): _EVA,
    ("EvaBlock", "AttentionRope"): _EVA,
    ("EvaBlockPostNorm", "EvaAttention"): _POST,
    ("EvaBlockPostNorm", "AttentionRope"): _POST,
    ("ParallelThingsBlock", "Attention"): _THINGS,
    ("ParallelScalingBlock", "NoneType"): _SCALING,
    ("DiffParallelScalingBlock", "NoneType"): _SCALING,
    ("ViTLayer", "ViTAttention"): _VIT,
    ("DeiTLayer", "DeiTAttention"): _VIT,
    ("Dinov2Layer", "Dinov2Attention"): _DINO,
    ("Dinov2WithRegistersLayer", "Dinov2WithRegistersAttention"): _DINO,
    ("DINOv3ViTLayer", "DINOv3ViTAttention"): _DINO,
    ("CLIPEncoderLayer", "CLIPAttention"): _CLIP,
    ("SiglipEncoderLayer", "SiglipAttention"): _CLIP,
}
