"""Discard patch tokens."""

import torch
from torch import Tensor

from tokensearch.ops.tokens import Tokens, take


def best(score: Tensor, *, keep: int, prefix: int) -> Tensor:
    """Rows of the prefix tokens and of the `keep` best-scored patch tokens, in order.

    score  (B, N)          higher survives; of equals the earlier token
    ->     (B, P + keep)   row numbers below P + N, with P = `prefix`

    Costs two sorts of N. Source: top-k selection of EViT (arXiv:2202.07800).
    """
    kept = score.argsort(dim=1, descending=True, stable=True)[:, :keep].sort(dim=1).values
    first = torch.arange(prefix, device=kept.device).expand(kept.shape[0], prefix)
    return torch.cat([first, kept + prefix], dim=1)


def pick(tokens: Tokens, index: Tensor) -> Tokens:
    """Keep the tokens at `index`, with their sizes.

    tokens  (B, P + N, C)
    index   (B, K)          row numbers below P + N
    ->      (B, K, C)
    """
    return Tokens(take(tokens.x, index), None if tokens.size is None else take(tokens.size, index))
