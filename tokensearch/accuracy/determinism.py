"""Whether a model answers the same twice; no search goes by answers that are partly chance."""

from collections.abc import Callable

import torch
from torch import Tensor

from tokensearch.errors import ModelError

# Largest difference of two passes, as a share of how far logits lie apart. The same batch twice
# differs by the order in which a GPU adds; other batches go through other kernels, with TF32 for
# one. Dropout and batch statistics move logits by a tenth of their spread and more.
TWICE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
AMONG_OTHERS = {"float32": 1e-2, "float16": 5e-2, "bfloat16": 2e-1}


@torch.inference_mode()
def check_steady(model: Callable[[Tensor], Tensor], images: Tensor, *, name: str) -> None:
    """Refuse a model whose answers differ between passes, or with the other images of a batch.

    images  (B, 3, rows, columns), B of at least 2, or the batch is not looked at

    Raises:
        ModelError: It does so beyond rounding.
    """
    dtype = str(images.dtype).removeprefix("torch.")
    first, again = model(images), model(images)
    if (off := _off(first, again)) > TWICE[dtype]:
        raise ModelError(
            f"model {name} does not answer the same twice: between two passes of the same images "
            f"its logits moved by {100 * off:.2g} % of their spread, where rounding explains "
            f"{100 * TWICE[dtype]:g} %; leave out dropout and noise (model.eval()), or draw them "
            f"with a seed of their own in every pass"
        )
    alone = torch.cat([model(half) for half in images.flip(0).chunk(2)]).flip(0)
    if (off := _off(first, alone)) > AMONG_OTHERS[dtype]:
        raise ModelError(
            f"model {name} answers about an image by what else is in the batch: in other batches "
            f"its logits moved by {100 * off:.2g} % of their spread, where rounding explains "
            f"{100 * AMONG_OTHERS[dtype]:g} %; have it normalise by the statistics of its training "
            f"(model.eval(), no functional batch_norm with training=True)"
        )


def _off(one: Tensor, other: Tensor) -> float:
    """Largest difference of two (B, K), as a share of the largest distance from a row's mean."""
    one, other = one.double(), other.double()
    spread = (one - one.mean(dim=1, keepdim=True)).abs().max()
    off = float((one - other).abs().max() / spread.clamp(min=torch.finfo(torch.float32).tiny))
    return off if off == off else 0.0  # what is not finite is refused where answers are read
