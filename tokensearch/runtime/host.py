"""What the runtime leans on in a host model, and what it reads off it."""

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.policy import ModelSpec
from tokensearch.runtime import towers
from tokensearch.runtime.adapters import explain_refusal, family_of, find_attention
from tokensearch.runtime.towers import Tower, tower_of

_SUPPORTED = f"supported are timm's VisionTransformer, Eva and NaFlexVit, and {towers.NAMES}"

# Classes that run one model, which is theirs under this name, and change nothing of what it makes
# of its tokens. By name, since the runtime imports torch alone: torch, timm, peft, transformers;
# the last is ours.
_WRAPPERS: Mapping[str, str] = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "AveragedModel": "module",
    "ModelEma": "module",
    "ModelEmaV2": "module",
    "ModelEmaV3": "module",
    "PeftModel": "base_model",
    "BaseTuner": "model",
    "TimmWrapperModel": "timm_model",
    "TimmWrapperForImageClassification": "timm_model",
    "HuggingFaceModel": "model",
}


@dataclass(frozen=True)
class Host:
    """The part of a Vision Transformer that the runtime leans on."""

    model: nn.Module  # without wrappers
    blocks: Sequence[nn.Module]
    num_prefix_tokens: int
    embed_dim: int
    patch_tokens: int
    rotates: bool  # attention rotates queries and keys by position
    any_size: bool = False  # images may have another size than `patch_tokens` are for
    tower: Tower | None = None  # of a model of transformers


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers that only run it: `torch.compile`, DDP, averages, PEFT.

    Some forward attributes; what is set on such a wrapper would not be on the model that runs.
    """
    for kind in type(model).__mro__:
        inner = getattr(model, _WRAPPERS.get(kind.__name__, ""), None)
        if isinstance(inner, nn.Module):
            if len(getattr(model, "device_ids", None) or ()) > 1:
                raise ModelError(
                    "a DataParallel over several devices copies a model without its policy; take "
                    "DistributedDataParallel, or one device"
                )
            return unwrap(inner)
    return model


def as_host(model: nn.Module) -> Host:
    """Read off what a Host has; ModelError when the model is not one."""
    if not isinstance(model, nn.Module):
        raise ModelError(f"a {type(model).__name__} is no torch module; {_SUPPORTED}")
    outer, model = model, unwrap(model)
    if not _has_blocks(model):
        _name_inner(outer)
    tower = tower_of(model)
    if tower is not None:
        return _of_tower(model, tower)
    kind = type(model).__name__
    timm_model: Any = model
    _check_blocks(_iterated(model), kind)
    if not hasattr(model, "blocks") and (hasattr(model, "layers") or hasattr(model, "stages")):
        raise ModelError(
            f"a {kind} has stages, whose windows and downsampling need the whole grid, instead of "
            f"blocks; {_SUPPORTED}"
        )
    for name in ("blocks", "num_prefix_tokens", "embed_dim"):
        if not hasattr(model, name):
            raise ModelError(f"a {kind} has no {name}; {_SUPPORTED}")
    return Host(
        model=model,
        blocks=_iterated(model),
        num_prefix_tokens=int(timm_model.num_prefix_tokens),
        embed_dim=int(timm_model.embed_dim),
        patch_tokens=_patch_tokens(timm_model),
        rotates=getattr(model, "rope", None) is not None,
    )


def _of_tower(model: nn.Module, tower: Tower) -> Host:
    _check_blocks(tower.blocks, type(model).__name__)
    return Host(
        model=model,
        blocks=tower.blocks,
        num_prefix_tokens=tower.prefix_tokens,
        embed_dim=tower.width,
        patch_tokens=tower.grid_size[0] * tower.grid_size[1],
        rotates=tower.rotates,
        any_size=tower.takes_any_size,
        tower=tower,
    )


def anchor_of(model: nn.Module) -> nn.Module:
    """Return the module that keeps what is attached: the model, or its tower."""
    model = unwrap(model)
    tower = tower_of(model)
    return model if tower is None else tower.module


def _has_blocks(model: nn.Module) -> bool:
    """Whether blocks are a model's own, and not an attribute that it forwards."""
    return "blocks" in model._modules or hasattr(type(model), "blocks") or bool(tower_of(model))


def _name_inner(model: nn.Module) -> None:
    """Refuse a module of unknown code around a model, naming the attribute that is one."""
    for path, part in model.named_modules():
        timms = "blocks" in part._modules and hasattr(part, "num_prefix_tokens")
        if path and (timms or tower_of(part)):
            kind, steps = type(model).__name__, path.split(".")
            name = "".join(f"[{step}]" if step.isdecimal() else f".{step}" for step in steps)
            raise ModelError(
                f"a {kind} keeps its {type(part).__name__} in {name}; pass that: model{name} "
                f"(with dense=True where the {kind} averages patch tokens)"
            )


def _iterated(model: nn.Module) -> Sequence[nn.Module]:
    """Return the blocks of a model of timm's, none where it has none."""
    blocks: Any = getattr(model, "blocks", ())
    try:
        return tuple(blocks)
    except TypeError as error:
        raise ModelError(
            f"the blocks of a {type(model).__name__} are a {type(blocks).__name__} and no list, as "
            f"in a model that was traced or exported; apply the policy to the model before that"
        ) from error


def _check_blocks(blocks: Sequence[nn.Module], kind: str) -> None:
    """Refuse blocks that cannot be opened, or that run twice: a policy treats each by its own."""
    for index, block in enumerate(blocks):
        _check_block(block, index, kind)
        first = blocks.index(block)
        if first < index:
            raise ModelError(
                f"blocks {first} and {index} of the {kind} are one module, which cannot follow a "
                f"policy in two ways; give each a copy (copy.deepcopy)"
            )


def _check_block(block: nn.Module, index: int, kind: str) -> None:
    if towers.moves_weights(block):  # its forward, which an opened block replaces, moves inputs too
        raise ModelError(
            f"block {index} of the {kind} is moved by accelerate; load the model onto one device, "
            f"without device_map"
        )
    why = explain_refusal(block)
    if why is not None:
        raise ModelError(f"block {index} of the {kind} cannot be opened: {why}")
    if family_of(block) is None:
        inner = type(find_attention(block)).__name__
        raise ModelError(
            f"block {index} of the {kind} is a {type(block).__name__} with {inner}; {_SUPPORTED}"
        )


def _patch_tokens(model: Any) -> int:
    """Patches of an image of the model's own size."""
    count = getattr(getattr(model, "patch_embed", None), "num_patches", None)
    if count is not None:
        return int(count)
    patch = getattr(getattr(model, "embeds", None), "patch_size", None)
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    if patch is None or size is None:
        kind = type(model).__name__
        raise ModelError(f"a {kind} does not say how many patches it has; {_SUPPORTED}")
    return int((size[-2] // patch[0]) * (size[-1] // patch[1]))  # NaFlexVit takes any size


def describe(model: nn.Module, *, name: str | None = None) -> ModelSpec:
    """Return what a policy must know of `model`, but for its weights; ModelError if unfit."""
    host = as_host(model)
    return ModelSpec(
        name or _name(unwrap(model)),
        blocks=len(host.blocks),
        patch_tokens=host.patch_tokens,
        prefix_tokens=host.num_prefix_tokens,
        width=host.embed_dim,
    )


def weights_digest(model: nn.Module) -> str | None:
    """Return "sha256:..." over every parameter and buffer, in order of name.

    None where one has no bytes of its own to read: quantised, sharded, sparse, on the meta device.
    """
    digest = hashlib.sha256()
    for name, value in sorted(unwrap(model).state_dict().items()):
        if not is_plain(value):
            return None
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        data = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        size = data.numel() * data.element_size()
        if size:  # by address, since `Tensor.numpy` would make NumPy a dependency
            digest.update((ctypes.c_char * size).from_address(data.data_ptr()))
    return "sha256:" + digest.hexdigest()


def is_abstract(value: Tensor) -> bool:
    """Whether a tensor has a shape and no values: on the meta device, or in torch's fake mode."""
    return value.is_meta or any(kind.__name__ == "FakeTensor" for kind in type(value).__mro__)


def is_plain(value: object) -> bool:
    """Whether a value is a tensor that is a piece of memory, and no subclass that computes it."""
    return (
        type(value) in {Tensor, nn.Parameter}
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and not is_abstract(value)
        and not value.is_quantized
    )


def has_class_token(model: nn.Module) -> bool:
    """Whether the first prefix token is a class token, whose attention can score patches."""
    model = unwrap(model)
    tower = tower_of(model)
    if tower is not None:
        return tower.has_class_token
    said = getattr(model, "has_class_token", None)
    return getattr(model, "cls_token", None) is not None if said is None else bool(said)


def reads_prefix_only(model: nn.Module) -> bool:
    """Whether the head reads prefix tokens alone, so that the last block may skip the rest."""
    model = unwrap(model)
    tower = tower_of(model)
    if tower is not None:
        return tower.reads == "prefix"
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
