"""Which kernel attends, and how long each that may takes: by dtype, mask, tokens and batch."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.bench.probe.notes import Measure, guarded
from tests.bench.probe.timing import busy_us, span_us

HEADS, HEAD_DIM = 6, 64  # DeiT-S
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# What TORCH_CUDNN_SDPA_DEPRIORITIZED=1 asks for; the environment is read once a process.
CUDNN_LAST = [BACKENDS[name] for name in ("flash", "efficient", "math", "cudnn")]
# Twelve counts that nothing before has met, and for each kernel others.
FIRST_NEW, MOST_NEW, NEW_STEP = 50, 194, 12
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
TOKENS = (197, 147, 97, 49)  # before and after three sites that keep 3/4, 1/2 and 1/4
BATCHES = (64, 1, 8)


def attention(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """Choice and times of every cell, the most deployed first."""
    batches, tokens = (BATCHES, TOKENS) if device.type == "cuda" else ((1,), (49,))
    for dtype, batch, masked, count in product(DTYPES, batches, (False, True), tokens):
        mask = "bias" if masked else "no mask"
        name = f"{str(dtype).removeprefix('torch.')}, batch {batch}, {mask}, {count} tokens"
        made = partial(drawn, device, dtype, batch, count, masked=masked)
        yield name, lambda made=made: cell(*made())


def cell(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> dict[str, Any]:
    """Who is chosen, who with cuDNN last, and microseconds of each that may."""
    device, call = q.device, partial(F.scaled_dot_product_attention, q, k, v, attn_mask=bias)
    found: dict[str, Any] = {"choice": choice(q, bias), "default_us": busy_us(call, device)}
    for name, backend in BACKENDS.items():
        with sdpa_kernel(backend):
            found[f"{name}_us"] = guarded(lambda: busy_us(call, device))
    if bias is not None:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            found["widened_us"] = guarded(lambda: busy_us(partial(widened, q, k, v, bias), device))
            ready = partial(
                F.scaled_dot_product_attention, *widen(q, k, v, bias), scale=HEAD_DIM**-0.5
            )
            found["wide_us"] = guarded(lambda: busy_us(ready, device))
    with sdpa_kernel(CUDNN_LAST, set_priority=True):
        found["choice_cudnn_last"] = choice(q, bias)
    return found


def widened(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention with a bias per key by kernels that take none: a column of q and k adds it."""
    wide = widen(q, k, v, bias)
    return F.scaled_dot_product_attention(*wide, scale=HEAD_DIM**-0.5)[..., :HEAD_DIM]


def widen(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Add a column of ones to q, the bias over the scale to k, and zeros up to a width that flash
    attention takes."""
    column = (bias * HEAD_DIM**0.5).transpose(-2, -1).expand(*k.shape[:-1], 1)
    wide_q = F.pad(torch.cat([q, torch.ones_like(q[..., :1])], -1), (0, 7))
    wide_k = F.pad(torch.cat([k, column], -1), (0, 7))
    return wide_q, wide_k, F.pad(v, (0, 8))


def drawn(
    device: torch.device, dtype: torch.dtype, batch: int, count: int, *, masked: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries, keys and values as timm's blocks make them, and a bias as proportional attention."""
    qkv = torch.randn(batch, count, 3, HEADS, HEAD_DIM, device=device).to(dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    bias = torch.rand(batch, 1, 1, count, device=device).to(dtype) if masked else None
    return q, k, v, bias


def choice(q: Tensor, bias: Tensor | None) -> str:
    number = torch._fused_sdp_choice(q, q, q, bias)
    return {backend.value: name for name, backend in BACKENDS.items()}.get(number, str(number))


def first_calls(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """What a token count costs the first time: cuDNN makes a plan for each."""
    for masked in (False, True):
        mask = "bias" if masked else "no mask"
        kernels = {"default": list(BACKENDS.values()), **{n: [b] for n, b in BACKENDS.items()}}
        for shift, (name, allowed) in enumerate(kernels.items()):
            counts = range(FIRST_NEW + shift, MOST_NEW, NEW_STEP)
            yield f"{name}, {mask}", partial(first, device, allowed, counts, masked=masked)


def first(
    device: torch.device, allowed: list[SDPBackend], counts: Iterable[int], *, masked: bool
) -> dict[str, Any]:
    """First and second calls of each count, in milliseconds."""
    firsts, seconds = [], []
    with sdpa_kernel(allowed):
        for count in counts:
            q, k, v, bias = drawn(device, torch.bfloat16, 8, count, masked=masked)
            call = partial(F.scaled_dot_product_attention, q, k, v, attn_mask=bias)
            firsts.append(span_us(call, device) / 1e3)
            seconds.append(span_us(call, device) / 1e3)
    return {"first_ms": firsts, "second_ms": seconds, "all_first_ms": sum(firsts)}
