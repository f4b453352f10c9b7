"""Whether a model is deterministic: no search can rest on predictions that are partly random."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from tokensearch.errors import ModelError, TokensearchWarning

# Largest difference of two passes, as a share of the spread of the outputs. The same batch twice
# differs by the order in which a GPU adds; other batches go through other kernels, TF32 among
# them. Dropout and batch statistics move logits by a tenth of their spread and more.
TWO_PASSES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
TWO_BATCHES = {"float32": 1e-2, "float16": 5e-2, "bfloat16": 2e-1}

SUM_TOLERANCE = 1e-2  # of probabilities: 1,000 of them in bfloat16 are off by half of that
CONSTANT = 1e-7  # of the largest logit: below what float32 tells apart


@torch.inference_mode()
def check_deterministic(model: Callable[[Tensor], Tensor], images: Tensor, *, name: str) -> None:
    """Refuse a model whose outputs differ between passes, or with the other images of a batch.

    Or not at all from image to image: by such answers no policy is better than another. Warns of
    probabilities where logits are expected.

    images  (B, 3, rows, columns); with B of 1 the effect of the batch is not checked

    Raises:
        ModelError: They differ by more than rounding.
    """
    dtype = str(images.dtype).removeprefix("torch.")
    first, again = model(images).flatten(1), model(images).flatten(1)
    if (moved := _difference(first, again)) > TWO_PASSES[dtype]:
        raise ModelError(
            f"model {name} is not deterministic: between two passes of the same images "
            f"its outputs moved by {100 * moved:.2g} % of their spread, where rounding explains "
            f"{100 * TWO_PASSES[dtype]:g} %; leave out dropout and noise (model.eval()), or draw "
            f"them with a seed of their own in every pass"
        )
    if len(images) > 1 and not (images == images[:1]).all() and _is_constant(first):
        raise ModelError(
            f"model {name} gives the same outputs for different images, by which no policy can be "
            f"chosen; give trained weights with --checkpoint FILE, or images that differ"
        )
    if _are_probabilities(first):
        warnings.warn(
            f"model {name} returns probabilities where logits are expected, so that divergences "
            f"come out far too small; let it return what goes into its softmax",
            TokensearchWarning,
            stacklevel=2,
        )
    alone = torch.cat([model(half) for half in images.flip(0).chunk(2)]).flip(0).flatten(1)
    if (moved := _difference(first, alone)) > TWO_BATCHES[dtype]:
        raise ModelError(
            f"model {name} depends on the other images of a batch: in other batches "
            f"its outputs moved by {100 * moved:.2g} % of their spread, where rounding explains "
            f"{100 * TWO_BATCHES[dtype]:g} %; have it normalise by the statistics of its training "
            f"(model.eval(), no functional batch_norm with training=True)"
        )


def _is_constant(logits: Tensor) -> bool:
    """Whether all rows of (B, K) are finite and equal, but for rounding."""
    logits = logits.double()
    spread = (logits - logits[:1]).abs().max()
    return bool(spread <= CONSTANT * logits.abs().max())  # false where one is not a number


def _are_probabilities(outputs: Tensor) -> bool:
    """Whether all rows of (B, K) are shares of 1, but for rounding."""
    outputs = outputs.double()
    sums_to_one = bool(((outputs.sum(dim=1) - 1).abs() < SUM_TOLERANCE).all())
    return outputs.shape[1] > 1 and sums_to_one and bool((outputs >= 0).all())


def _difference(logits: Tensor, other: Tensor) -> float:
    """Largest difference of two (B, K), as a share of the largest distance from a row's mean."""
    logits, other = logits.double(), other.double()
    spread = (logits - logits.mean(dim=1, keepdim=True)).abs().max()
    moved = float((logits - other).abs().max() / spread.clamp(min=torch.finfo(torch.float32).tiny))
    return moved if moved == moved else 0.0  # what is not finite is refused where logits are read
