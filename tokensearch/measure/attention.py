"""Which kernel computes an attention: flash, memory-efficient, cuDNN's, our own or plain maths.

The same call is twice as fast or slow by it, and a mask (proportional attention adds one) may rule
the fastest out.
"""

import torch
from torch import nn
from torch.nn.attention import SDPBackend

from tokensearch.ops import is_attention_fused
from tokensearch.runtime.adapters import find_attention
from tokensearch.runtime.host import as_host

NAMES = {
    SDPBackend.FLASH_ATTENTION: "flash",
    SDPBackend.EFFICIENT_ATTENTION: "efficient",
    SDPBackend.CUDNN_ATTENTION: "cudnn",
    SDPBackend.MATH: "math",
    SDPBackend.OVERRIDEABLE: "overrideable",  # of a device that torch does not bring itself
}


def sdpa_backend(
    device: torch.device,
    dtype: torch.dtype,
    *,
    heads: int,
    tokens: int,
    head_dim: int,
    masked: bool,
) -> str:
    """Return the kernel that `scaled_dot_product_attention` takes for one image of such a shape.

    `masked` adds a bias of shape (1, 1, 1, tokens), as proportional attention does; "triton" is
    `ops.attend_with_bias`, which is taken instead where it can be. Asks the
    dispatcher's own `torch._fused_sdp_choice`: the public `torch.nn.attention` only says what is
    allowed, and its `can_use_*` know CUDA alone.
    """
    q = torch.empty(1, heads, tokens, head_dim, device=device, dtype=dtype)
    bias = torch.zeros(1, 1, 1, tokens, device=device, dtype=dtype) if masked else None
    with torch.inference_mode():
        if bias is not None and is_attention_fused(q, q, q, bias):
            return "triton"
        choice = torch._fused_sdp_choice(q, q, q, bias)
    return NAMES[SDPBackend(choice)]


def attention_of(model: nn.Module, *, masked: bool = False) -> str:
    """Return the kernel of the baseline's attention, where its weights are.

    `masked` adds the bias of proportional attention.

    "explicit" where the model spells its attention out; "unknown" where it does not say its heads.

    Raises:
        ModelError: The model has no blocks that could be reduced.
    """
    host, weight = as_host(model), next(model.parameters())
    attn = find_attention(host.blocks[0])
    heads = getattr(attn, "num_heads", None) or getattr(attn, "num_attention_heads", None)
    if not isinstance(heads, int):
        return "unknown"
    if host.tower is not None:
        chosen = str(attn.config._attn_implementation)
        if chosen != "sdpa":
            return {"eager": "explicit"}.get(chosen, chosen)
    elif not getattr(attn, "fused_attn", True):
        return "explicit"
    return sdpa_backend(
        weight.device,
        weight.dtype,
        heads=heads,
        tokens=host.num_prefix_tokens + host.patch_tokens,
        head_dim=int(getattr(attn, "head_dim", host.embed_dim // heads)),
        masked=masked,
    )
