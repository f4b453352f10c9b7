"""Discard patch tokens."""

from typing import NamedTuple

import torch
from torch import Tensor

from tokensearch.ops.fused import is_fused
from tokensearch.ops.tokens import Moves, Tokens, follow_moves, in_own_type, is_tracked, take


class Ranking(NamedTuple):
    """Which tokens stay and which go; row numbers of the whole sequence."""

    kept: Tensor  # (B, P + K) prefix tokens, then survivors
    gone: Tensor  # (B, N - K) best first


def sort_descending(score: Tensor) -> Tensor:
    """Places of tokens, best first; of equals the earlier one. (B, N) -> (B, N)."""
    if torch.onnx.is_in_onnx_export():  # it knows no stable sort, and ONNX's is stable
        return score.sort(dim=1, descending=True).indices
    return score.sort(dim=1, descending=True, stable=True).indices


def rank(score: Tensor, *, keep: int, prefix: int, by_score: bool = False) -> Ranking:
    """Split the patch tokens into the `keep` best-scored and the rest.

    score     (B, N)    higher survives
    by_score  survivors come best first instead of in the order they had

    Costs two sorts of N. Source: top-k selection of EViT (arXiv:2202.07800).
    """
    if is_fused(score[:, :, None]):
        from tokensearch.ops.triton import launch

        return Ranking(*launch.run_rank(score, keep, prefix, by_score))
    order = sort_descending(score) + prefix
    kept, gone = order[:, :keep], order[:, keep:]
    if not by_score:
        kept = kept.sort(dim=1).values
    return Ranking(torch.cat([first_rows(order, prefix), kept], dim=1), gone)


def first_rows(like: Tensor, count: int) -> Tensor:
    """Row numbers 0 to `count`, left out, for every image of `like`, (B, N): (B, count).

    By adding and not by size, which an export by torch.jit.trace would fix to its example.
    """
    return like[:, :1] * 0 + torch.arange(count, device=like.device)


def pick(tokens: Tokens, index: Tensor, *, prefix: int) -> Tokens:
    """Keep the tokens at `index`, with their sizes.

    tokens  (B, P + N, C)
    index   (B, P + K)     row numbers below P + N, the prefix tokens first
    ->      (B, P + K, C)
    """
    if is_fused(tokens.x, tokens.size):
        from tokensearch.ops.triton import launch

        x, size, log_size = launch.run_gather(tokens.x, tokens.size, index)
        after = Tokens(x) if tokens.size is None else Tokens(x, size, log_size=log_size)
    else:
        size = None if tokens.size is None else take(tokens.size, index)
        after = Tokens(take(tokens.x, index), size)
    if not is_tracked(tokens):
        return after
    moves = Moves(index, _rows(index, tokens.x.shape[1]), discards=True)
    return follow_moves(tokens, after, moves, prefix=prefix)


@in_own_type
def pick_and_add(
    tokens: Tokens,
    ranking: Ranking,
    *,
    prefix: int,
    weight: Tensor | None = None,
    sizes: bool = True,
) -> Tokens:
    """Keep the survivors, and add one token made of the discarded.

    tokens  (B, P + N, C)
    weight  (B, N)           the token is the sum weighted by this; None: the mean
    sizes   whether anybody will ask how many patches the mean stands for; the sum stands for one
    ->      (B, P + K + 1, C)

    The weighted sum is EViT's fused token: weights are the scores as they are, not made to sum to 1
    (arXiv:2202.07800). The mean is POMT's (arXiv:2407.05941).
    """
    kept, gone = ranking
    size = tokens.size
    if size is None and sizes and weight is None:
        size = torch.ones_like(tokens.x[..., :1])
    if is_fused(tokens.x, size, weight):
        from tokensearch.ops.triton import launch

        x, new_size, log_size = launch.run_gather_and_add(
            tokens.x, size, kept, gone, weight, prefix
        )
        after = Tokens(x) if size is None else Tokens(x, new_size, log_size=log_size)
    else:
        after = _pick_and_add(tokens._replace(size=size), ranking, weight, prefix)
    if not is_tracked(tokens):
        return after
    row = _rows(kept, tokens.x.shape[1])
    row = torch.where(row < 0, kept.shape[1], row)  # the added token holds what was discarded
    return follow_moves(tokens, after, Moves(torch.cat([kept, gone[:, :1]], 1), row), prefix=prefix)


def _pick_and_add(tokens: Tokens, ranking: Ranking, weight: Tensor | None, prefix: int) -> Tokens:
    kept, gone = ranking
    extra, extra_size = _extra(tokens, gone, None if weight is None else weight[..., None], prefix)
    x = torch.cat([take(tokens.x, kept), extra], dim=1)
    if tokens.size is None:
        return Tokens(x)
    return Tokens(x, torch.cat([take(tokens.size, kept), extra_size], dim=1))


def _extra(
    tokens: Tokens, gone: Tensor, weight: Tensor | None, prefix: int
) -> tuple[Tensor, Tensor]:
    """Features (B, 1, C) and size (B, 1, 1) of the token that the discarded become."""
    left = take(tokens.x, gone)
    unit = torch.ones_like(left[:, :1, :1])
    if weight is not None:
        return (take(weight, gone - prefix).to(left.dtype) * left).sum(dim=1, keepdim=True), unit
    if tokens.size is None:
        return left.mean(dim=1, keepdim=True), unit * left.shape[1]
    size = take(tokens.size, gone)
    whole = size.sum(dim=1, keepdim=True)
    return (left * (size / whole)).sum(dim=1, keepdim=True), whole


def _rows(index: Tensor, length: int) -> Tensor:
    """New row of every old one: the inverse of `index`, -1 where it is not met."""
    rows = index.new_full((index.shape[0], length), -1)
    return rows.scatter(
        1, index, torch.arange(index.shape[1], device=index.device).expand_as(index)
    )
