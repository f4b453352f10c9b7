"""Replace patch tokens by weighted means, one for each learned query: PatchMerger."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tokensearch.ops.tokens import Moves, Tokens, follow_moves, in_own_type, is_tracked

NORM_EPS = 1e-5  # of the layer norm, in both public implementations


@in_own_type
def merge_by_queries(
    tokens: Tokens,
    queries: Tensor,
    norm: tuple[Tensor, Tensor],
    *,
    scale: float,
    raw: bool,
    prefix: int,
) -> Tokens:
    """Return prefix tokens, then one mean of all patch tokens for each query.

    tokens   (B, P + N, C)
    queries  (K, C)
    norm     (C,), (C,)     weight and bias of the layer norm before
    scale    of the logits
    raw      the means are those of the tokens as they are, not as the norm makes them
    ->       (B, P + K, C)

    A mean counts as one patch. For those who follow tokens, a patch is held by the query that
    weighs it most, and a mean has the position of the token that it weighs most.
    Source: PatchMerger (arXiv:2202.12015).
    """
    x = tokens.x
    patches = x[:, prefix:]
    weight, bias = (part.to(x.dtype) for part in norm)
    normed = F.layer_norm(patches, weight.shape, weight, bias, NORM_EPS)
    attention = (queries.to(x.dtype) @ normed.transpose(1, 2) * scale).softmax(dim=-1)
    means = attention @ (patches if raw else normed)
    size = None
    if tokens.size is not None:
        size = torch.cat([tokens.size[:, :prefix], torch.ones_like(means[..., :1])], dim=1)
    after = Tokens(torch.cat([x[:, :prefix], means], dim=1), size)
    if not is_tracked(tokens):
        return after
    own = torch.arange(prefix, device=x.device).expand(x.shape[0], -1)
    first = torch.cat([own, prefix + attention.argmax(dim=2)], dim=1)
    row = torch.cat([own, prefix + attention.argmax(dim=1)], dim=1)
    return follow_moves(tokens, after, Moves(first, row), prefix=prefix)
