"""Proof that an opened block computes what the host's own block computes.

Run before a block is used, on random input: a timm that changed under us is then a ModelError,
never a wrong number.
"""

import copy
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.reduced_block import ReducedBlock

_EXTRA_TOKENS = 6  # patch tokens in the proof's input; the halves do not depend on the number
_SEED = 0

# Largest difference, as a share of the largest output. In double precision both ways agree to
# 1e-14; norms that compute in single precision whatever they are given leave 1e-7.
TOLERANCE = 1e-5

# Blocks that were checked, with what they were made of then: a search applies hundreds of policies
# to one model, and a check copies the block.
_CHECKED: WeakKeyDictionary[nn.Module, tuple[object, ...]] = WeakKeyDictionary()


def check_equivalence(opened: ReducedBlock, *, width: int, rotates: bool) -> None:
    """Hold the two halves of a block against its own forward; ModelError if they differ.

    A copy of the block is compared in double precision and evaluation mode, so that neither the
    model's number type nor its dropout blurs the comparison, and nobody's hooks are called.
    Nothing can be compared on the meta device. A block is checked once, while its modules stay.
    """
    block, prefix = opened.block, opened.prefix
    device = next(block.parameters()).device
    _refuse_hooks(opened)
    made_of = _made_of(block)
    if device.type == "meta" or _CHECKED.get(block) == made_of:
        return
    twin = _twin(block)
    x = _noise(2, prefix + _EXTRA_TOKENS, width).to(device)
    named = {"rope": _rotations(twin).to(device)} if rotates else {}
    with torch.no_grad():
        host = twin(x, **named)
        whole, first = _opened(opened, twin, x, named)
    _compare(whole, host, opened)
    _compare(first, host[:, : prefix or None], opened)
    _CHECKED[block] = made_of


def _refuse_hooks(opened: ReducedBlock) -> None:
    """Attention is spelt out, so that hooks on the host's own would never be called."""
    for name, part in opened.block.named_modules():
        hooked = part._forward_hooks or part._forward_pre_hooks
        if hooked and "Attention" in type(part).__name__:
            raise ModelError(
                f"{name} of block {opened.index} has hooks, which a policy would pass over; "
                f"remove them first"
            )


def _made_of(block: nn.Module) -> tuple[object, ...]:
    """Modules inside a block, and the settings of each: what its code depends on beside weights."""
    plain = (bool, int, float, str, type(None))
    return tuple(
        (part if part is not block else None, name, value)
        for part in block.modules()
        for name, value in sorted(vars(part).items())
        if isinstance(value, plain) and name != "training"
    )


def _twin(block: nn.Module) -> nn.Module:
    """Return a copy in double precision and evaluation mode, without hooks."""
    hooks = (
        value for part in block.modules() for name, value in vars(part).items() if "_hooks" in name
    )
    # Already "copied", as none: a hook may hold what cannot be copied.
    memo: dict[int, Any] = {id(value): type(value)() for value in hooks}
    return copy.deepcopy(block, memo).double().eval()


def _noise(*shape: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(_SEED)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")


def _rotations(block: nn.Module) -> Tensor:
    """Sines and cosines of random angles, one for each feature of a head."""
    angles = _noise(_EXTRA_TOKENS, int(block.attn.head_dim))  # type: ignore[union-attr,arg-type]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _opened(
    opened: ReducedBlock, twin: nn.Module, x: Tensor, named: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Output of the opened block for all tokens, and for the first ones alone."""
    family, rope = opened.family, named.get("rope")
    try:
        whole, first = (
            family.finish(twin, family.attend(twin, x, bias=None, queries=queries, rope=rope).x)
            for queries in (None, opened.prefix or None)
        )
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"a {type(twin).__name__} block cannot be opened: {error}") from error
    return whole, first


def _compare(output: Tensor, host: Tensor, opened: ReducedBlock) -> None:
    difference = (output - host).abs().max().item()
    if not difference <= TOLERANCE * host.abs().max().item():
        kind = type(opened.block)
        raise ModelError(
            f"block {opened.index}, a {kind.__module__}.{kind.__name__}, differs by "
            f"{difference:.2g} from its own forward when opened; this version of it is not "
            f"supported"
        )
