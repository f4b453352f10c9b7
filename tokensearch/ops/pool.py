"""Merge patch tokens that resemble each other, two sets at a time: ToMe and DiffRate.

Sums run through one-hot matrix products, so that they do not depend on the order in which a device
adds (scatter-add does).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from tokensearch.ops.fused import is_fused
from tokensearch.ops.learning import MaskBias
from tokensearch.ops.prune import Ranking, sort_descending
from tokensearch.ops.tokens import Moves, Tokens, follow_moves, in_own_type, is_tracked, take

# PyTorch's fastest kernels of half precision take no bias, or set themselves up anew for every
# count of tokens. float32 would need products of full precision, in which they are as fast.
ATTENTION_DTYPES = (torch.bfloat16, torch.float16)
MOST_FEATURES = 128  # of a head: a block of queries, keys and values must fit
MOST_METRIC = 128  # features that tokens are matched by: 256 take 96 KB of shared memory, and spill


class Matching(NamedTuple):
    """Which tokens of A stay, and which join which token of B; row numbers within each set."""

    stay: Tensor  # (B, A - r) of A, in order
    leave: Tensor  # (B, r) of A, most similar first
    partner: Tensor  # (B, r) of B


def halves(tokens: int, *, prefix: int) -> tuple[slice, slice]:
    """Sets A and B of ToMe: even and odd places of the whole sequence, prefix tokens left out."""
    odd = prefix % 2
    return slice(prefix + odd, tokens, 2), slice(prefix + 1 - odd, tokens, 2)


def match_bipartite(
    metric: Tensor, *, removed: int, prefix: int, size: Tensor | None = None
) -> Matching:
    """Pair the `removed` tokens of A that most resemble a token of B with that token.

    metric  (B, P + N, D)   what similarity is judged on, or (B, H, P + N, D) to be summed over H
    size    (B, P + N, 1)   given, large tokens are less similar, so that small ones merge first
    ->      Matching        with r = `removed`, at most the number of patch tokens in A

    Cosine similarity; of equals the earlier token. Source: ToMe (arXiv:2210.09461). Registers
    are protected as the class token is, which ToMe does not know of. The weight by size is MCTF's
    (arXiv:2403.10030).
    """
    if size is None and is_fused(metric) and metric.shape[-1] <= MOST_METRIC:
        from tokensearch.ops.triton import launch

        keys = metric if metric.dim() == 4 else metric[:, None]
        return Matching(*launch.run_match_bipartite(keys, removed, prefix))
    if metric.dim() == 4:
        metric = metric.sum(dim=1)
    place_a, place_b = halves(metric.shape[1], prefix=prefix)
    direction = normalize(metric)
    similarity = direction[:, place_a] @ direction[:, place_b].transpose(1, 2)
    if size is not None:
        similarity = (similarity + 1) / 2 * _size_weight(size, place_a, place_b)
    similarity, partner = similarity.max(dim=2)
    order = sort_descending(similarity)
    leave, stay = order[:, :removed], order[:, removed:]
    if prefix:  # without a class token, the authors' code leaves them most similar first
        stay = stay.sort(dim=1).values
    return Matching(stay, leave, partner.gather(1, leave))


SIZE_TEMPERATURE = 40  # MCTF's, for DeiT


def _size_weight(size: Tensor, place_a: slice, place_b: slice) -> Tensor:
    """(B, A, B): 1 for tokens of the smallest size, less for larger ones."""
    small = size.amin(dim=1, keepdim=True) / size
    return (small[:, place_a] * small[:, place_b].transpose(1, 2)) ** (1 / SIZE_TEMPERATURE)


@in_own_type
def merge(tokens: Tokens, matching: Matching, *, prefix: int) -> Tokens:
    """Fold the leaving tokens of A into their partners in B, weighted by size.

    tokens  (B, P + N, C)
    ->      (B, P + N - r, C)   prefix, then A without the leaving, then B (ToMe's order)
    """
    if is_fused(tokens.x, tokens.size):
        from tokensearch.ops.triton import launch

        x, size, log_size = launch.run_merge(tokens.x, tokens.size, *matching, prefix)
        after = Tokens(x, size, log_size=log_size)
    else:
        after = _merge(tokens, matching, prefix)
    if not is_tracked(tokens):
        return after
    return follow_moves(tokens, after, _moves(matching, tokens, prefix), prefix=prefix)


def _merge(tokens: Tokens, matching: Matching, prefix: int) -> Tokens:
    x, size = tokens.x, tokens.size
    images, length, width = x.shape
    place_a, place_b = halves(length, prefix=prefix)
    # Rows of A among the rows of all images, so that whole rows are copied once and none twice.
    start = place_a.start
    first = torch.arange(start, start + images * length, length, device=x.device)[:, None]
    stay, leave = (torch.add(first, part, alpha=2).flatten() for part in matching[:2])
    rows = x.reshape(images * length, width)
    left = rows.index_select(0, stay).view(images, matching[0].shape[1], width)
    moving = rows.index_select(0, leave).view(images, matching[1].shape[1], width)
    if size is None:
        joins = _joins(matching.partner, x, place_b)
        size_b = joins.sum(2, keepdim=True) + 1
        sizes = [size_b.new_ones(images, prefix + left.shape[1], 1), size_b]
        own = 1 / size_b
    else:
        weights = size.reshape(images * length)
        joins = _joins(matching.partner, x, place_b, weights.index_select(0, leave))
        size_b = joins.sum(2, keepdim=True) + size[:, place_b]
        kept = weights.index_select(0, stay).view(images, matching[0].shape[1], 1)
        sizes = [size[:, :prefix], kept, size_b]
        own = size[:, place_b] / size_b
    # Shares before sums: in half precision a sum of many would overflow.
    merged = torch.baddbmm(x[:, place_b] * own, joins / size_b, moving)
    return Tokens(torch.cat([x[:, :prefix], left, merged], dim=1), torch.cat(sizes, dim=1))


def _joins(partner: Tensor, x: Tensor, place_b: slice, weight: Tensor | None = None) -> Tensor:
    """(B, B', r): the weight of each leaving token in the row of its partner, zeros elsewhere."""
    joins = x.new_zeros(x.shape[0], x[:, place_b].shape[1], partner.shape[1])
    column = partner[:, None]  # one row a column: nothing is written twice, so order cannot matter
    if weight is None:
        return joins.scatter_(1, column, 1.0)
    return joins.scatter_(1, column, weight.view(column.shape))


@in_own_type
def merge_ranked(tokens: Tokens, ranking: Ranking, *, prefix: int) -> Tokens:
    """Fold the lowest-ranked tokens into the survivors that they resemble most.

    tokens   (B, P + N, C)
    ->       (B, P + K, C)  prefix, then the survivors in the order of `ranking`

    Similarity is the cosine of the features themselves. Source: DiffRate (arXiv:2305.17997), whose
    code this follows in two quirks: a merged token is the plain mean of its members, whatever their
    sizes, and a member adds its size times its similarity. Where that leaves nothing (features that
    point apart), the size is held above zero, for which the logarithm exists.
    """
    kept, gone = ranking
    if is_fused(tokens.x, tokens.size):
        from tokensearch.ops.triton import launch

        x, size, log_size, partner = launch.run_merge_ranked(
            tokens.x, tokens.size, kept, gone, prefix
        )
        after = Tokens(x, size, log_size=log_size)
    else:
        after, partner = _merge_ranked(tokens, ranking, prefix)
    if not is_tracked(tokens):
        return after
    own = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    rows = torch.cat([own, partner.to(own.dtype)], dim=1)  # kernels number in 32 bits
    row = torch.empty_like(rows).scatter(1, torch.cat([kept, gone], dim=1), rows)
    return follow_moves(tokens, after, Moves(kept, row), prefix=prefix)


def _merge_ranked(tokens: Tokens, ranking: Ranking, prefix: int) -> tuple[Tokens, Tensor]:
    """The tokens that are left, and the row that each of the others joined, (B, r)."""
    x = tokens.x
    size = torch.ones_like(x[..., :1]) if tokens.size is None else tokens.size
    kept, gone = ranking
    stay, leave = take(x, kept), take(x, gone)
    unit_stay, unit_leave = normalize(stay[:, prefix:]), normalize(leave)
    similarity, partner = (unit_leave @ unit_stay.transpose(1, 2)).max(dim=2)
    partner = partner + prefix
    joins = one_hot(partner, rows=kept.shape[1], dtype=x.dtype)  # (B, P + K, r)
    share = 1 / (1 + joins.sum(2, keepdim=True))
    x = torch.baddbmm(stay * share, joins * share, leave)
    size = take(size, kept) + joins @ (take(size, gone) * similarity[..., None])
    return Tokens(x, size.clamp(min=torch.finfo(size.dtype).tiny)), partner


@in_own_type
def size_bias(size: Tensor, log_size: Tensor | None = None) -> Tensor:
    """Proportional attention: a token of size s counts as s equal keys (ToMe).

    size      (B, T, 1)
    log_size  its logarithm, where somebody has it
    ->        (B, 1, 1, T)   log(size), to be added to the attention logits

    Sizes have the number type of the features, so that nothing turns a half-precision model into
    one of single precision. bfloat16 counts exactly to 256, float16 to 2048; beyond, a merge is
    rounded by 1 in 256 at most. That moves a logit by 0.004, where bfloat16 rounds a logit of 4 by
    as much as 0.016.
    """
    return (size.log() if log_size is None else log_size).transpose(1, 2)[:, None]


@in_own_type
def mask_bias(size: Tensor) -> Tensor:
    """What keeps tokens of size 0, with which images are filled up, from being attended to.

    size  (B, T, 1)
    ->    (B, 1, 1, T)  0, or minus infinity for size 0

    Of sizes that learn, its derivative is passed on to them as it is (`learning.attend_masked`).
    """
    if size.requires_grad:
        learning: Tensor = MaskBias.apply(size)
        return learning.transpose(1, 2)[:, None]
    bias = torch.zeros_like(size).masked_fill(size == 0, -torch.inf)
    return bias.transpose(1, 2)[:, None]


def is_attention_fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> bool:
    """Whether `attend_with_bias` takes these tensors."""
    return (
        q.dtype in ATTENTION_DTYPES
        and q.dtype == k.dtype == v.dtype
        and q.shape[:2] == k.shape[:2] == v.shape[:2]
        and q.shape[-1] == v.shape[-1] <= MOST_FEATURES
        and bias.shape[1:3] == (1, 1)
        and is_fused(k, q, v, bias)
        and q.stride(-1) == v.stride(-1) == 1
    )


def attend_with_bias(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention with `bias` added to the logits of every query.

    q     (B, H, Q, D)
    k, v  (B, H, T, D)
    bias  (B, 1, 1, T)
    ->    (B, H, Q, D)
    """
    from tokensearch.ops.triton import launch

    out: Tensor = launch.run_attention(q, k, v, bias)
    return out.transpose(1, 2)


def normalize(x: Tensor) -> Tensor:
    """Scale to length 1 along the last dimension, so that products are cosines; zeros stay zero.

    The usual floor of 1e-12 is 0 in float16, and 0 / 0 is not a number.
    """
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp(min=max(1e-12, torch.finfo(x.dtype).tiny))


def one_hot(index: Tensor, *, rows: int, dtype: torch.dtype) -> Tensor:
    """(B, r) row numbers -> (B, rows, r), 1 where a column's row number is met."""
    return (index[:, None, :] == torch.arange(rows, device=index.device)[None, :, None]).to(dtype)


def _moves(matching: Matching, tokens: Tokens, prefix: int) -> Moves:
    """Where ToMe's order puts every token."""
    length = tokens.x.shape[1]
    every = torch.arange(length, device=tokens.x.device).expand(tokens.x.shape[0], -1)
    rows_a, rows_b = (every[:, half] for half in halves(length, prefix=prefix))
    stay, leave = rows_a.gather(1, matching.stay), rows_a.gather(1, matching.leave)
    first = torch.cat([every[:, :prefix], stay, rows_b], dim=1)
    before_b = prefix + stay.shape[1]
    rows = torch.cat([every[:, : first.shape[1]], before_b + matching.partner], dim=1)
    row = torch.empty_like(every).scatter(1, torch.cat([first, leave], dim=1), rows)
    return Moves(first, row)
