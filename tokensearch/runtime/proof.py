"""Proof that an opened block computes what the host's own block computes.

Run before a block is used, on random input: a timm that changed under us is then a ModelError,
never a wrong number.
"""

import copy

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.adapter import attention_half, mlp_half

_EXTRA_TOKENS = 6  # patch tokens in the proof's input; the halves do not depend on the number
_SEED = 0

# Largest difference, as a share of the largest output. In double precision both ways agree to
# 1e-14; norms that compute in single precision whatever they are given leave 1e-7.
TOLERANCE = 1e-5


def prove(block: nn.Module, *, place: int, prefix: int, width: int) -> None:
    """Hold the two halves of `block` against its own forward; ModelError if they differ.

    A copy of the block is compared in double precision and evaluation mode, so that neither the
    model's number type nor its dropout blurs the comparison, and nobody's hooks are called.
    Nothing can be compared on the meta device.
    """
    device = next(block.parameters()).device
    if device.type == "meta":
        return
    generator = torch.Generator().manual_seed(_SEED)
    x = torch.randn(2, prefix + _EXTRA_TOKENS, width, generator=generator, dtype=torch.float64)
    twin = _twin(block)
    with torch.no_grad():
        host = twin(x.to(device))
        whole, first = _opened(twin, x.to(device), prefix)
    _compare(whole, host, block, place)
    _compare(first, host[:, : max(prefix, 1)], block, place)


def _twin(block: nn.Module) -> nn.Module:
    """Return a copy in double precision and evaluation mode, without hooks."""
    twin = copy.deepcopy(block).double().eval()
    for part in twin.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return twin


def _opened(block: nn.Module, x: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Output of the opened block for all tokens, and for the prefix tokens alone."""
    try:
        whole = mlp_half(block, attention_half(block, x).x)
        return whole, mlp_half(block, attention_half(block, x, queries=max(prefix, 1)).x)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"a {type(block).__name__} block cannot be opened: {error}") from error


def _compare(opened: Tensor, host: Tensor, block: nn.Module, place: int) -> None:
    difference = (opened - host).abs().max().item()
    if not difference <= TOLERANCE * host.abs().max().item():
        raise ModelError(
            f"block {place}, a {type(block).__module__}.{type(block).__name__}, differs by "
            f"{difference:.2g} from its own forward when opened; this version of it is not "
            f"supported"
        )
