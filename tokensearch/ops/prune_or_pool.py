"""Prune or pool, image by image: PPT's rule (arXiv:2310.01812)."""

import torch
from torch import Tensor

from tokensearch.ops.pool import match_bipartite, merge
from tokensearch.ops.prune import pick, rank
from tokensearch.ops.tokens import Tokens


def prune_or_pool(
    tokens: Tokens, score: Tensor, metric: Tensor, *, keep: int, prefix: int, threshold: float
) -> Tokens:
    """Pool the images in which no token stands out, prune the others.

    tokens  (B, P + N, C)
    score   (B, N)          shares of the image, summing to 1
    metric  (B, P + N, D)   as of `match_bipartite`
    ->      (B, P + keep, C)

    No token stands out where the variance of the scores is under `threshold`. Both ways are
    computed and one is chosen, so that no count and no branch depends on the data. As in the
    authors' code, survivors of a prune come best first, which changes the two sets of a later pool.
    """
    removed = score.shape[1] - keep
    pooled = merge(tokens, match_bipartite(metric, removed=removed, prefix=prefix), prefix=prefix)
    assert pooled.size is not None
    if tokens.size is None:
        tokens = tokens._replace(size=torch.ones_like(tokens.x[..., :1]))
    pruned = pick(tokens, rank(score, keep=keep, prefix=prefix, by_score=True).kept, prefix=prefix)
    flat = score.var(dim=1) < threshold
    rest = (_choose(flat, *pair) for pair in zip(pooled[1:], pruned[1:], strict=True))
    return Tokens(torch.where(flat[:, None, None], pooled.x, pruned.x), *rest)


def _choose(flat: Tensor, pooled: Tensor | None, pruned: Tensor | None) -> Tensor | None:
    """Per image, `pooled` where `flat`, `pruned` elsewhere; what only a prune has, for all."""
    if pooled is None or pruned is None:
        return pruned
    return torch.where(flat.view(-1, *(1,) * (pooled.dim() - 1)), pooled, pruned)
