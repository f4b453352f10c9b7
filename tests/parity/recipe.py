"""Deterministic weights and images, from NumPy's PCG64 alone, for comparing implementations."""

import numpy as np
import torch


def fill(model: torch.nn.Module, seed: int, qkv_std: float = 0.12) -> None:
    """Overwrite every parameter, in sorted name order, in float64."""
    rng = np.random.default_rng(seed)
    state = dict(model.named_parameters())
    with torch.no_grad():
        for name in sorted(state):
            p = state[name]
            a = rng.standard_normal(tuple(p.shape))
            if "norm" in name:
                a = (1.0 + 0.1 * a) if name.endswith("weight") else 0.1 * a
            elif "qkv" in name:
                a = a * (qkv_std if name.endswith("weight") else 0.05)
            elif name.endswith("bias"):
                a = a * 0.05
            elif "patch_embed" in name:
                a = a * 0.03
            elif name in ("cls_token", "dist_token", "pos_embed"):
                a = a * 0.3
            else:
                a = a * 0.06
            p.copy_(torch.from_numpy(a).to(p.dtype))


def images(count: int, seed: int, size: int = 224) -> torch.Tensor:
    """Smooth scenes with one busy square each: (count, 3, size, size), float64."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.standard_normal((count, 3, 7, 7)))
    x = torch.nn.functional.interpolate(
        coarse, size=(size, size), mode="bilinear", align_corners=False
    )
    for i in range(count):
        top, left = rng.integers(0, size - 80, 2)
        x[i, :, top : top + 80, left : left + 80] += (
            torch.from_numpy(rng.standard_normal((3, 80, 80))) * 1.5
        )
    return x
