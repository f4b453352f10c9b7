"""What the runtime leans on in a host model, and what it reads off it."""

import ctypes
import hashlib
from typing import Any, Protocol, cast

from torch import nn

from tokensearch.errors import ModelError
from tokensearch.policy import ModelSpec
from tokensearch.runtime.adapter import family

_SUPPORTED = "supported are models of timm's VisionTransformer shape with plain Block and Attention"


class Host(Protocol):
    """The part of a Vision Transformer that the runtime leans on; timm's has it."""

    blocks: nn.Sequential
    num_prefix_tokens: int
    embed_dim: int
    patch_embed: Any  # has num_patches


def as_host(model: nn.Module) -> Host:
    """Return the model as a Host; ModelError when it is not one."""
    missing = [
        name
        for name in ("blocks", "num_prefix_tokens", "embed_dim", "patch_embed")
        if not hasattr(model, name)
    ]
    if missing or not hasattr(model.patch_embed, "num_patches"):
        lacks = missing[0] if missing else "patch_embed.num_patches"
        raise ModelError(f"a {type(model).__name__} has no {lacks}; {_SUPPORTED}")
    for place, block in enumerate(cast(Host, model).blocks):
        if family(block) is None:
            inner = type(getattr(block, "attn", None)).__name__
            raise ModelError(
                f"block {place} of the {type(model).__name__} is a {type(block).__name__} "
                f"with {inner}; {_SUPPORTED}"
            )
    return cast(Host, model)


def describe(model: nn.Module, *, name: str | None = None) -> ModelSpec:
    """Return what a policy must know of `model`, but for its weights; ModelError if unfit."""
    host = as_host(model)
    return ModelSpec(
        name or _name(model),
        blocks=len(host.blocks),
        patch_tokens=int(host.patch_embed.num_patches),
        prefix_tokens=int(host.num_prefix_tokens),
        width=int(host.embed_dim),
    )


def weights_digest(model: nn.Module) -> str:
    """Return "sha256:..." over every parameter and buffer, in order of name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        data = value.detach().cpu().contiguous()
        size = data.numel() * data.element_size()
        if size:  # by address, since `Tensor.numpy` would make NumPy a dependency
            digest.update((ctypes.c_char * size).from_address(data.data_ptr()))
    return "sha256:" + digest.hexdigest()


def has_class_token(model: nn.Module) -> bool:
    """Whether the first prefix token is a class token, whose attention can score patches."""
    return getattr(model, "cls_token", None) is not None


def reads_prefix_only(model: nn.Module) -> bool:
    """Whether the head reads prefix tokens alone, so that the last block may skip the rest."""
    return (
        getattr(model, "global_pool", None) == "token" and getattr(model, "attn_pool", None) is None
    )


def _name(model: nn.Module) -> str:
    """Return timm's name of the model, tag included, or its class."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    architecture, tag = cfg.get("architecture"), cfg.get("tag")
    if not architecture:
        return type(model).__name__
    return f"{architecture}.{tag}" if tag else str(architecture)
