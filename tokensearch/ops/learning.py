"""Masks that learn: what is computed without some tokens, with derivatives by what is left out."""

import torch
from torch import Tensor

from tokensearch.ops.prune import sort_descending
from tokensearch.ops.threshold import choose_best
from tokensearch.ops.tokens import Tokens, in_own_type


def mask_above(
    tokens: Tokens,
    score: Tensor,
    *,
    threshold: Tensor,
    temperature: float,
    prefix: int,
    least: int = 0,
) -> Tokens:
    """Give the patch tokens that `keep_above` would drop a size of 0, and remove none.

    tokens, score, least  as of `keep_above`
    threshold             a positive number that learns
    temperature           share of the threshold over which a token comes and goes
    ->                    (B, P + N, C)  the same features; their sizes carry derivatives

    Whoever attends to tokens of size 0 no more, and averages by size, computes what it would
    without them. The derivative of a size is that of a sigmoid of how far the score is above the
    threshold, as a share of it: scores grow from site to site, as tokens go.
    Source: AS-ViT (arXiv:2209.13802), whose sigmoid has one width for all sites.
    """
    size = tokens.size
    held = score
    if size is not None:  # left out before
        held = score.masked_fill(size[:, prefix:, 0] == 0, -torch.inf)
    alive = held > threshold
    if least:
        alive = alive | choose_best(held, least)
    soft = ((score / threshold - 1) / temperature).sigmoid()
    return _mask(tokens, alive, soft, prefix)


def mask_below_rank(
    tokens: Tokens, score: Tensor, *, keep: int, survival: Tensor, prefix: int
) -> Tokens:
    """Give all but the best-scored patch tokens a size of 0, and remove none.

    tokens    (B, P + N, C)
    score     (B, N)         higher survives; of equals the earlier token
    keep      tokens of each image that survive: ranks are those among what is there already
    survival  (N,)           probability that the token of a rank survives, best first
    ->        (B, P + N, C)  the same features; their sizes carry derivatives

    The derivative of a size is that of the probability of its token's rank. Source: DiffRate
    (arXiv:2305.17997), whose masks are of ranks as well.
    """
    held = score
    if tokens.size is not None:  # left out before: last
        held = score.masked_fill(tokens.size[:, prefix:, 0] == 0, -torch.inf)
    order = sort_descending(held)
    ranks = torch.arange(score.shape[1], device=score.device).expand_as(order)
    rank = torch.empty_like(order).scatter(1, order, ranks)
    return _mask(tokens, rank < keep, survival[rank], prefix)


def _mask(tokens: Tokens, alive: Tensor, probability: Tensor, prefix: int) -> Tokens:
    """Multiply sizes of patch tokens by a choice that has the derivative of a probability."""
    mask = _StraightThrough.apply(alive, probability)[..., None]
    kept = torch.cat([torch.ones_like(tokens.x[:, :prefix, :1]), mask.to(tokens.x.dtype)], dim=1)
    return tokens._replace(size=kept if tokens.size is None else kept * tokens.size)


@in_own_type
def attend_masked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, *, dropout: float) -> Tensor:
    """Attention whose mask learns.

    q        (B, H, Q, D)
    k, v     (B, H, T, D)
    bias     (B, 1, 1, T)  of `mask_bias`
    dropout  probability
    ->       (B, H, Q, D)

    Its derivative by the mask of a key that is left out is what admitting the key would change. A
    key whose logit is far above all others would make that boundless: its logit counts as that of
    the largest that is left, so that the derivative by any weight is at most 1. What is computed
    is exact either way.
    """
    mask: Tensor = _Mask.apply(bias)
    logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    most = logits.masked_fill(mask == 0, -torch.inf).amax(dim=-1, keepdim=True).detach()
    weights = (logits - most).clamp(max=0).exp() * mask
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return torch.dropout(weights.to(v.dtype), dropout, train=True) @ v


class _StraightThrough(torch.autograd.Function):
    """A choice, with the derivative of a probability."""

    @staticmethod
    def forward(ctx: object, chosen: Tensor, probability: Tensor) -> Tensor:
        del ctx
        return chosen.to(probability.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[None, Tensor]:
        del ctx
        return None, gradient


class MaskBias(torch.autograd.Function):
    """Bias of a mask of ones and zeros; the derivative by either is the same."""

    @staticmethod
    def forward(ctx: object, mask: Tensor) -> Tensor:
        """Return 0 for ones, and minus infinity for zeros."""
        del ctx
        return torch.zeros_like(mask).masked_fill(mask == 0, -torch.inf)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Pass the derivative on."""
        del ctx
        return gradient


class _Mask(torch.autograd.Function):
    """Mask of a bias: what `MaskBias` was given."""

    @staticmethod
    def forward(ctx: object, bias: Tensor) -> Tensor:
        del ctx
        return bias.exp()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        del ctx
        return gradient
