"""How much each patch token matters: one number per image and token, higher survives."""

import torch
from torch import Tensor


def class_attention(
    query: Tensor, keys: Tensor, *, prefix: int, bias: Tensor | None = None
) -> Tensor:
    """Attention that the class token pays to each patch token, averaged over heads.

    query   (B, H, 1, D)   the class token's query
    keys    (B, H, T, D)   of all tokens, T = P + N
    bias    (B, 1, 1, T)   added to the logits, if the block's own attention adds it
    ->      (B, N)         positive; with the prefix's share they sum to 1

    One extra row beside the fused attention, never the full matrix. Source: EViT
    (arXiv:2202.07800), whose score is this row of the block's own softmax.
    """
    logits = (query * query.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    score: Tensor = logits.softmax(dim=-1).mean(dim=1)[:, 0, prefix:]
    return score


def random_order(images: int, patch_tokens: int, *, seed: int, device: torch.device) -> Tensor:
    """Seeded random scores, the same for every image: the control that every score must beat.

    -> (images, patch_tokens) integers

    Places are hashed (the finaliser of MurmurHash3), since a generator made inside a pass can
    neither be compiled nor exported.
    """
    word = 2**32 - 1
    mixed = (torch.arange(patch_tokens, device=device) + seed * 0x9E3779B1) & word
    for factor in (0x045D9F3B, 0x045D9F3B):
        mixed = ((mixed >> 16 ^ mixed) * factor) & word
    return (mixed >> 16 ^ mixed).expand(images, patch_tokens)
