"""Proof that an opened block computes what the host's own block computes.

Run before a block is used, on random input: a timm that changed under us is then a ModelError,
never a wrong number.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.adapter import attention_half, mlp_half

_EXTRA_TOKENS = 6  # patch tokens in the proof's input; the halves do not depend on the number
_SEED = 0


def prove(block: nn.Module, *, place: int, prefix: int, width: int) -> None:
    """Hold the two halves of `block` against its own forward; ModelError if they differ.

    Compared to torch's own tolerances for the dtype, in evaluation mode. Nothing can be compared
    on the meta device.
    """
    like = next(block.parameters())
    if like.is_meta:
        return
    generator = torch.Generator().manual_seed(_SEED)
    x = torch.randn(2, prefix + _EXTRA_TOKENS, width, generator=generator)
    x = x.to(device=like.device, dtype=like.dtype)
    with torch.no_grad(), _evaluating(block):
        host = block(x)
        whole, first = _opened(block, x, prefix)
    _compare(whole, host, block, place)
    _compare(first, host[:, : max(prefix, 1)], block, place)


def _opened(block: nn.Module, x: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
    """Output of the opened block for all tokens, and for the prefix tokens alone."""
    try:
        whole = mlp_half(block, attention_half(block, x).x)
        return whole, mlp_half(block, attention_half(block, x, queries=max(prefix, 1)).x)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"a {type(block).__name__} block cannot be opened: {error}") from error


def _compare(opened: Tensor, host: Tensor, block: nn.Module, place: int) -> None:
    try:
        torch.testing.assert_close(opened, host)
    except AssertionError as error:
        worst = (opened.double() - host.double()).abs().max().item()
        source = type(block).__module__
        raise ModelError(
            f"block {place}, a {source}.{type(block).__name__}, differs by {worst:.2g} from "
            f"its own forward when opened; this version of it is not supported"
        ) from error


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Switch off dropout and the like; afterwards every submodule is as it was."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
