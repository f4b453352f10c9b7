"""Whether operators run as fused kernels, or as many small operations of PyTorch.

The kernels compute what the plain functions compute, in a tenth of the launches. They are taken on
NVIDIA GPUs where Triton is installed, for what they can do; the plain functions do all else: CPUs,
gradients, float64, exports.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

Kernels = Literal["auto", "torch", "triton"]
MOST_TOKENS = 4096  # ranking compares each token with each
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_HAS_TRITON = find_spec("triton") is not None
_wanted: Kernels = "auto"


@contextmanager
def use_kernels(kernels: Kernels) -> Iterator[None]:
    """Use these kernels inside, in all threads: for comparisons, and to rule the fused ones out.

    auto    fused where they can be, which is the default
    torch   never
    triton  wherever they take the tensors; without a GPU, Triton's interpreter runs them
    """
    global _wanted
    before, _wanted = _wanted, kernels
    try:
        yield
    finally:
        _wanted = before


def is_fused(x: Tensor, *others: Tensor | None) -> bool:
    """Whether fused kernels take these tensors, tokens along the last dimension but one of `x`."""
    if _wanted == "torch" or not (x.is_cuda or _wanted == "triton"):
        return False
    return _HAS_TRITON and not torch.compiler.is_exporting() and _fits(x, *others)


def kernels_of(device: torch.device, dtype: torch.dtype) -> Literal["torch", "triton"]:
    """Which kernels the operators of a model in `dtype` run on `device`."""
    wanted = _wanted == "triton" or (_wanted == "auto" and device.type == "cuda")
    return "triton" if wanted and _HAS_TRITON and dtype in DTYPES else "torch"


def _fits(x: Tensor, *others: Tensor | None) -> bool:
    tensors = [x, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return (
        x.shape[-2] <= MOST_TOKENS
        and x.stride(-1) == 1
        and all(tensor.dtype in DTYPES and _is_plain(tensor) for tensor in tensors)
    )


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has memory of its own: sharded or quantised ones are made of others."""
    return not hasattr(type(tensor), "__tensor_flatten__")
