"""Merge patch tokens that have many near neighbours, and spare those that stand alone: PiToMe."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokensearch.ops.pool import normalize
from tokensearch.ops.prune import first_rows, sort_descending
from tokensearch.ops.tokens import Moves, Tokens, follow_moves, in_own_type, is_tracked, take


class Folding(NamedTuple):
    """Which tokens stay and which of them others join; row numbers of the whole sequence."""

    stay: Tensor  # (B, P + S) that nobody joins, the prefix tokens first
    target: Tensor  # (B, M) that others may join
    leave: Tensor  # (B, r)
    partner: Tensor  # (B, r) row number within `target`


def margin_of(block: int, blocks: int) -> float:
    """Margin of the published schedules: 0.75 in the first block, towards 0 in the last."""
    return 0.75 - 0.75 * block / blocks


def match_by_energy(
    metric: Tensor, *, removed: int, prefix: int, margin: float, bipartite: bool = False
) -> Folding:
    """Let `removed` tokens of high energy join the most similar of the others.

    metric     (B, P + N, D)  what similarity is judged on
    margin     cosine similarity from which on a neighbour counts as near
    bipartite  A and B are every second token by energy of all, and the most similar edges merge;
               else of the 2 r of highest energy every second one joins one of the others, and the
               rest is protected

    Energy is the mean of ELU(similarity - margin) over all patch tokens, the token itself included.
    Source: PiToMe (arXiv:2405.16148).
    """
    direction = normalize(metric[:, prefix:])
    similarity = direction @ direction.transpose(1, 2)
    order = sort_descending(F.elu(similarity - margin).mean(dim=2))
    if bipartite:
        source, target = order[:, ::2], order[:, 1::2]
    else:
        source, target = order[:, : 2 * removed : 2], order[:, 1 : 2 * removed : 2]
    best, partner = _between(similarity, source, target).max(dim=2)
    rest = order[:, 2 * removed :]
    if bipartite:
        by_edge = sort_descending(best)
        rest = source.gather(1, by_edge[:, removed:])
        source, partner = (part.gather(1, by_edge[:, :removed]) for part in (source, partner))
    stay = torch.cat([first_rows(order, prefix), rest + prefix], dim=1)
    return Folding(stay, target + prefix, source + prefix, partner)


@in_own_type
def fold(tokens: Tokens, folding: Folding, *, prefix: int) -> Tokens:
    """Fold the leaving tokens into their partners, weighted by size.

    tokens  (B, P + N, C)
    ->      (B, P + S + M, C)  those that stay, then those that others join
    """
    stay, target, leave, partner = folding
    x = tokens.x
    size = torch.ones_like(x[..., :1]) if tokens.size is None else tokens.size
    weight = take(size, leave)
    joins = x.new_zeros(x.shape[0], target.shape[1], leave.shape[1])
    # One row a column: nothing is written twice, so that order cannot matter.
    joins = joins.scatter(1, partner[:, None], weight.transpose(1, 2))
    own = take(size, target)
    whole = joins.sum(2, keepdim=True) + own
    # Shares before sums: in half precision a sum of many would overflow.
    merged = torch.baddbmm(take(x, target) * (own / whole), joins / whole, take(x, leave))
    after = Tokens(
        torch.cat([take(x, stay), merged], dim=1), torch.cat([take(size, stay), whole], dim=1)
    )
    if not is_tracked(tokens):
        return after
    kept = torch.cat([stay, target], dim=1)
    rows = torch.arange(kept.shape[1], device=x.device).expand_as(kept)
    every = torch.cat([rows, stay.shape[1] + partner], dim=1)
    row = torch.empty_like(every).scatter(1, torch.cat([kept, leave], dim=1), every)
    return follow_moves(tokens, after, Moves(kept, row), prefix=prefix)


def _between(similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, N, N), (B, r), (B, M) -> (B, r, M): similarities of some with some others."""
    some = take(similarity, rows)
    return some.gather(2, columns[:, None].expand(-1, rows.shape[1], -1))
