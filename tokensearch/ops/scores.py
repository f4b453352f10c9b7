"""How much each patch token matters: one number per image and token, higher survives.

Those by attention cost one extra row of it beside the fused kernel, never the full matrix. `bias`
is what the block's own attention adds to its logits (proportional attention).
"""

from collections.abc import Callable
from re import fullmatch

import torch
from torch import Tensor

from tokensearch.errors import PolicyError
from tokensearch.ops.fused import is_fused

# Called with the features of the patch tokens after attention, (B, N, C), and their keys
# (B, H, N, D); gives (B, N).
OwnScoreFunction = Callable[[Tensor, Tensor], Tensor]
_OWN: dict[str, OwnScoreFunction] = {}


def add_score(name: str, function: OwnScoreFunction) -> None:
    """Let policies of this process score patch tokens by `function`: files call it `own:NAME`.

    function  of the features of N patch tokens after the block's attention, (B, N, C), and of
              their keys (B, H, N, D); returns (B, N), where higher survives. It must be a pure
              function of torch operators, so that it can be compiled and exported

    PolicyError where the name is none, or another function's: what is known of a policy is kept by
    its names.
    """
    if fullmatch("[a-z0-9_]{1,40}", name) is None:
        raise PolicyError(
            f"a score is called {name!r:.60}; give 1 to 40 small letters, digits and underscores"
        )
    if _OWN.setdefault(f"own:{name}", function) is not function:
        raise PolicyError(
            f"a score {name!r} is there already, and results are kept by that name; take another"
        )


def check_own_score(score: str) -> None:
    """Refuse a score whose function this process does not have: PolicyError."""
    if score not in _OWN:
        raise PolicyError(
            f"the policy scores by {score!r}, a function that this program has not given; call "
            f"tokensearch.add_score({score.removeprefix('own:')!r}, FUNCTION) first"
        )


def own_score(score: str, patches: Tensor, keys: Tensor) -> Tensor:
    """Score by a function of the user's own, as `add_score` says it."""
    check_own_score(score)
    values = _OWN[score](patches, keys)
    if values.shape != patches.shape[:2]:
        raise PolicyError(
            f"the score {score!r} has the shape {tuple(values.shape)}; it must have "
            f"{tuple(patches.shape[:2])}, a number for each image and patch token"
        )
    return values


def attention_row(
    query: Tensor, keys: Tensor, *, bias: Tensor | None = None, contrast: Tensor | None = None
) -> Tensor:
    """Attention of one query, head by head.

    query     (B, H, 1, D)
    keys      (B, H, T, D)
    bias      (B, 1, 1, T)  added to the logits
    contrast  scalar        of differential attention (arXiv:2410.05258): heads come in pairs, and
                            the second of a pair is subtracted, this many times
    ->        (B, H, T)     (B, H / 2, T) for differential attention
    """
    # A sum of products: a matrix product would first copy the keys, which lie apart, head by head.
    logits = (keys * (query * query.shape[-1] ** -0.5)).sum(dim=-1)
    row: Tensor = (logits if bias is None else logits + bias[:, :, 0]).softmax(dim=-1)
    if contrast is None:
        return row
    return row[:, ::2] - contrast * row[:, 1::2]


def attention_score(
    query: Tensor,
    keys: Tensor,
    *,
    prefix: int,
    bias: Tensor | None = None,
    contrast: Tensor | None = None,
) -> Tensor:
    """Attention that one query pays to each patch token, averaged over heads.

    Shapes as of `attention_row`; -> (B, N) as of `class_attention`.
    """
    if contrast is None and is_fused(keys, query, bias):
        from tokensearch.ops.triton import launch

        score: Tensor = launch.run_class_attention(query, keys, bias, prefix)
        return score
    return class_attention(attention_row(query, keys, bias=bias, contrast=contrast), prefix=prefix)


def class_attention(row: Tensor, *, prefix: int) -> Tensor:
    """Attention that the class token pays to each patch token, averaged over heads.

    row  (B, H, P + N)  the class token's row
    ->   (B, N)         positive; with the prefix's share they sum to 1

    Source: EViT (arXiv:2202.07800), DiffRate (arXiv:2305.17997).
    """
    score: Tensor = row[:, :, prefix:].mean(dim=1)
    return score


def class_attention_value(row: Tensor, values: Tensor, *, prefix: int) -> Tensor:
    """Class attention times the length of the token's value, as shares of the image's total.

    row     (B, H, P + N)
    values  (B, H, P + N, D)  the length is that of all heads' values, one after the other
    ->      (B, N)            sums to 1

    What the class token takes from a token is both how much it looks and how much there is.
    Source: the significance score of ATS (arXiv:2111.15667), as PPT (arXiv:2310.01812) uses it.
    """
    # Not by squares spelt out, which overflow in float16.
    length: Tensor = torch.linalg.vector_norm(values[:, :, prefix:], dim=(1, 3))
    score = row[:, :, prefix:].sum(dim=1) * length
    return score / score.sum(dim=1, keepdim=True)


def head_weighted_class_attention(row: Tensor, outputs: Tensor, *, prefix: int) -> Tensor:
    """Class attention, each head weighted by its share in the token's own attention output.

    row      (B, H, P + N)
    outputs  (B, H, P + N, D)  attention outputs before the projection
    ->       (B, N)

    Source: AS-ViT (arXiv:2209.13802), whose denominator is 1e-8 larger.
    """
    length: Tensor = torch.linalg.vector_norm(outputs[:, :, prefix:], dim=-1)
    return (row[:, :, prefix:] * length).sum(dim=1) / (length.sum(dim=1) + 1e-8)


def representation_shift(
    before: Tensor, after: Tensor, *, prefix: int, present: Tensor | None = None
) -> Tensor:
    """How far a half of the block has moved each patch token, as shares of the image's total.

    before   (B, P + N, C)  features before attention or MLP, the residual stream
    after    (B, P + N, C)  and after it
    present  (B, P + N, 1)  false for tokens that fill an image up
    ->       (B, N)         lengths of the differences; sums to 1

    Needs no attention, so that it serves models without a class token and kernels that hand out no
    row. Source: Representation Shift (arXiv:2508.00367), whose authors score by the MLP.
    """
    length: Tensor = torch.linalg.vector_norm((after - before)[:, prefix:], dim=-1)
    if present is not None:
        length = length * present[:, prefix:, 0]
    # By the longest first: in half precision the sum of hundreds would overflow.
    length = length / length.amax(dim=1, keepdim=True)
    return length / length.sum(dim=1, keepdim=True)


def learned_score(x: Tensor, query: Tensor, *, prefix: int) -> Tensor:
    """Product of each patch token's features with a learned vector.

    x      (B, P + N, C)  the residual stream, not normalised
    query  (C,)
    ->     (B, N)

    Source: Cropr (arXiv:2412.00965) with one query and one head, as its authors train it.
    """
    return x[:, prefix:] @ query.to(x.dtype)


def mean_query(queries: Tensor, *, prefix: int, present: Tensor | None = None) -> Tensor:
    """Mean of the patch tokens' queries, for models without a class token.

    queries  (B, H, P + N, D)
    present  (B, P + N, 1)  false for tokens that fill an image up
    ->       (B, H, 1, D)

    Average-pooled heads read the mean of all tokens, so what the mean query attends to is what the
    head is about to be told. Attention-pooled heads have learned queries, but in their own space
    after the last block, so the mean query stands in for them too. LTMP (arXiv:2306.07050) averages
    the attention columns instead, for which it needs the full matrix.
    """
    queries = queries[:, :, prefix:]
    if present is None:
        return queries.mean(dim=2, keepdim=True)
    counted = present[:, None, prefix:].to(queries.dtype)
    return (queries * (counted / counted.sum(dim=2, keepdim=True))).sum(dim=2, keepdim=True)


def random_order(images: int, patch_tokens: int, *, seed: int, device: torch.device) -> Tensor:
    """Seeded random scores, the same for every image: the control that every score must beat.

    -> (images, patch_tokens) integers

    Places are hashed (the finaliser of MurmurHash3), since a generator made inside a pass can
    neither be compiled nor exported.
    """
    word = 2**32 - 1
    mixed = (torch.arange(patch_tokens, device=device) + seed * 0x9E3779B1) & word
    for factor in (0x045D9F3B, 0x045D9F3B):
        mixed = (_fold(mixed) * factor) & word
    return _fold(mixed).expand(images, patch_tokens)


def _fold(word: Tensor) -> Tensor:
    """`word ^ word >> 16`, spelt without the XOR that torch's older exporter to ONNX lacks."""
    high = word >> 16
    return word + high - 2 * (word & high)
