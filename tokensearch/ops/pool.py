"""Merge patch tokens that resemble each other."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokensearch.ops.tokens import Tokens, take


class Matching(NamedTuple):
    """Which tokens of A stay, and which join which token of B; row numbers within each set."""

    stay: Tensor  # (B, A - r) of A, in order
    leave: Tensor  # (B, r) of A, most similar first
    partner: Tensor  # (B, r) of B


def halves(tokens: int, *, prefix: int) -> tuple[slice, slice]:
    """Sets A and B of ToMe: even and odd places of the whole sequence, prefix tokens left out."""
    odd = prefix % 2
    return slice(prefix + odd, tokens, 2), slice(prefix + 1 - odd, tokens, 2)


def match_bipartite(metric: Tensor, *, removed: int, prefix: int) -> Matching:
    """Pair the `removed` tokens of A that most resemble a token of B with that token.

    metric  (B, P + N, D)   what similarity is judged on: keys averaged over heads
    ->      Matching        with r = `removed`, at most the number of patch tokens in A

    Cosine similarity; of equals the earlier token. Source: ToMe (arXiv:2210.09461). Registers
    are protected as the class token is, which ToMe does not know of.
    """
    place_a, place_b = halves(metric.shape[1], prefix=prefix)
    unit = F.normalize(metric, dim=-1)
    similarity, partner = (unit[:, place_a] @ unit[:, place_b].transpose(1, 2)).max(dim=2)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    leave, stay = order[:, :removed], order[:, removed:]
    return Matching(stay.sort(dim=1).values, leave, partner.gather(1, leave))


def merge(tokens: Tokens, matching: Matching, *, prefix: int) -> Tokens:
    """Fold the leaving tokens of A into their partners in B, weighted by size.

    tokens  (B, P + N, C)
    ->      (B, P + N - r, C)   prefix, then A without the leaving, then B (ToMe's order)

    Sums run through a one-hot matrix product, so that they do not depend on the order in which
    a device adds (scatter-add does).
    """
    x, size = tokens
    place_a, place_b = halves(x.shape[1], prefix=prefix)
    joins = _one_hot(matching.partner, rows=x[:, place_b].shape[1], dtype=x.dtype)  # (B, B', r)
    heavy = x if size is None else x * size
    size_b = 1 + joins.sum(2, keepdim=True)
    if size is not None:
        size_b = size[:, place_b] + joins @ take(size[:, place_a], matching.leave)
    x_b = (heavy[:, place_b] + joins @ take(heavy[:, place_a], matching.leave)) / size_b
    x = torch.cat([x[:, :prefix], take(x[:, place_a], matching.stay), x_b], dim=1)
    untouched = x.shape[1] - size_b.shape[1]
    if size is None:
        first = size_b.new_ones(x.shape[0], untouched, 1)
    else:
        first = torch.cat([size[:, :prefix], take(size[:, place_a], matching.stay)], dim=1)
    return Tokens(x, torch.cat([first, size_b], dim=1))


def size_bias(size: Tensor) -> Tensor:
    """Proportional attention: a token of size s counts as s equal keys (ToMe).

    size  (B, T, 1)
    ->    (B, 1, 1, T)   log(size), to be added to the attention logits
    """
    return size.log().transpose(1, 2)[:, None]


def _one_hot(index: Tensor, *, rows: int, dtype: torch.dtype) -> Tensor:
    """(B, r) row numbers -> (B, rows, r), 1 where a column's row number is met."""
    return (index[:, None, :] == torch.arange(rows, device=index.device)[None, :, None]).to(dtype)
