"""Keep what scores above a threshold: as many tokens of each image as it has of them."""

import torch
from torch import Tensor

from tokensearch.ops.prune import sort_descending
from tokensearch.ops.tokens import Moves, Tokens, follow_moves, is_tracked, take


def keep_above(
    tokens: Tokens, score: Tensor, *, threshold: float, prefix: int, least: int = 0
) -> Tokens:
    """Keep the patch tokens whose score is above the threshold, in the order that they had.

    tokens  (B, P + N, C)
    score   (B, N)
    least   patch tokens that every image keeps: its best, where too few are above
    ->      (B, P + M, C)  M is the largest count of the batch, at least 1; images with fewer are
                           filled up with tokens of size 0, which nobody attends to and nobody
                           averages

    How many there are is asked once, so that a GPU waits here.
    Source: AS-ViT (arXiv:2209.13802), whose own code keeps a mean count in batches of several.
    """
    x, size = tokens.x, tokens.size
    images = x.shape[0]
    if size is not None:  # filled up before
        score = score.masked_fill(size[:, prefix:, 0] == 0, -torch.inf)
    alive = score > threshold
    if least:
        alive = alive | choose_best(score, least)
    counts = alive.sum(dim=1)
    spread = counts.tolist()
    most = max([1, *spread])  # a row that is left out by its size, where none is left in any image
    first = torch.arange(prefix, device=x.device).expand(images, prefix)
    order = sort_descending(alive.to(x.dtype))[:, :most] + prefix
    index = torch.cat([first, order], dim=1)
    kept = None if size is None else take(size, index)
    if min(spread, default=0) < most:
        held = torch.arange(prefix + most, device=x.device) < prefix + counts[:, None]
        kept = held[..., None].to(x.dtype) * (1 if kept is None else kept)
    after = Tokens(take(x, index), kept)
    if not is_tracked(tokens):
        return after
    row = _rows_of_survivors(alive, prefix)
    return follow_moves(tokens, after, Moves(index, row, discards=True), prefix=prefix)


def choose_best(score: Tensor, count: int) -> Tensor:
    """(B, N): whether a token is one of the best `count` of its image."""
    order = sort_descending(score)[:, :count]
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, order, value=True)


def _rows_of_survivors(alive: Tensor, prefix: int) -> Tensor:
    """(B, P + N): the new row of every old one, -1 where it was discarded."""
    row = torch.where(alive, alive.cumsum(dim=1) - 1 + prefix, -1)
    first = torch.arange(prefix, device=alive.device).expand(alive.shape[0], prefix)
    return torch.cat([first, row], dim=1)
