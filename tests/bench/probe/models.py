"""The fastest product and copy, and a real model's passes, as they are and captured."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tests.bench.probe.notes import Measure
from tests.bench.probe.timing import captured, host_us, typical_us

ROWS, CPU_ROWS = 8192, 512
COPY_BYTES, CPU_COPY_BYTES = 2**30, 2**26
PRODUCTS = {
    "bfloat16": (torch.bfloat16, "highest"),
    "float16": (torch.float16, "highest"),
    "float32": (torch.float32, "highest"),
    "float32 as tf32": (torch.float32, "high"),
}
MODEL, BATCHES = "deit_small_patch16_224", (1, 8, 64, 256)
LOOPS = 20


def ceilings(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """On random numbers: ones and zeros draw less power, and are faster than any model can be."""
    on_gpu = device.type == "cuda"
    for name, (dtype, precision) in PRODUCTS.items():
        rows = ROWS if on_gpu else CPU_ROWS
        yield (
            f"product, {name}, TFLOP/s",
            lambda r=rows, d=dtype, p=precision: product_tflops(r, d, p, device),
        )
    size = COPY_BYTES if on_gpu else CPU_COPY_BYTES
    yield "copy, read and written, GB/s", lambda: copy_gbs(size, device)


def product_tflops(rows: int, dtype: torch.dtype, precision: str, device: torch.device) -> float:
    left, right = (torch.randn(rows, rows, device=device).to(dtype) for _ in "ab")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        return 2 * rows**3 / typical_us(lambda: left @ right, device) / 1e6
    finally:
        torch.set_float32_matmul_precision(before)


def copy_gbs(size: int, device: torch.device) -> float:
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / typical_us(lambda: target.copy_(source), device) / 1e3


def passes(device: torch.device) -> Iterator[tuple[str, Measure]]:
    """Where the host sets the pace: what it takes to hand a pass out, and what replays take."""
    import timm  # it loads torch's compiler, for which the other sections need not wait

    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = timm.create_model(MODEL).eval().to(device, dtype)
    for batch in BATCHES if on_gpu else BATCHES[:1]:
        images = torch.randn(batch, 3, 224, 224, device=device).to(dtype)
        yield f"{MODEL}, {dtype}, batch {batch}", lambda i=images: paced(model, i)


def paced(model: Any, images: Tensor) -> dict[str, float]:
    device = images.device
    eager_us = typical_us(lambda: model(images), device)
    found = {"eager_ms": eager_us / 1e3}
    if device.type == "cuda":
        graph = captured(lambda: model(images))
        found["host_ms"] = host_us(lambda: model(images), device, calls=LOOPS) / 1e3
        found["captured_ms"] = typical_us(graph.replay, device) / 1e3
    return found
