"""Attention with a bias for each key: what sizes of tokens ask for.

PyTorch's fastest kernels take no bias, or set themselves up anew for every count of tokens.
"""

import torch
from torch import Tensor

from tokensearch.ops.fused import is_fused

# float32 would need products of full precision, in which PyTorch's kernels are as fast.
DTYPES = (torch.bfloat16, torch.float16)
MOST_FEATURES = 128  # of a head: a block of queries, keys and values must fit


def is_attention_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> bool:
    """Whether `attend_with_bias` takes these tensors."""
    return (
        q.dtype in DTYPES
        and q.shape[-1] == v.shape[-1] <= MOST_FEATURES
        and is_fused(k, q, v, bias)
        and q.stride(-1) == v.stride(-1) == 1
    )


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention with `bias` added to the logits of every query.

    q     (B, H, Q, D)
    k, v  (B, H, T, D)
    bias  (B, 1, 1, T)
    ->    (B, H, Q, D)
    """
    from tokensearch.ops.triton import launch

    out: Tensor = launch.run_attention(q, k, v, bias)
    return out.transpose(1, 2)
