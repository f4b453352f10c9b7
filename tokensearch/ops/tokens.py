"""The value that token operators work on.

House letters, here and everywhere: B images, P prefix tokens, N patch tokens, C width, H heads,
D features per head, T = P + N.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """A batch of token sequences: P prefix (class, register) tokens, then N patch tokens."""

    x: Tensor  # (B, P + N, C) features
    size: Tensor | None = None  # (B, P + N, 1) patches each token stands for; None: one each


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows, per image.

    values  (B, T, C)
    index   (B, K)     row numbers below T
    ->      (B, K, C)

    Whole rows are copied; `gather` with an expanded index moves one element at a time.
    """
    images, rows, width = values.shape
    first = torch.arange(images, device=index.device)[:, None] * rows
    picked = values.reshape(images * rows, width).index_select(0, (index + first).flatten())
    return picked.view(images, index.shape[1], width)
