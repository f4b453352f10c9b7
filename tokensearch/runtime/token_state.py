"""What travels with the features from block to block.

Blocks hand on plain tensors, so that hooks, `forward_features` and timm's own code see what they
expect; sizes, positions and sources (the token state) are an attribute of the tensor. Nothing is
kept beside the model: threads may share it, and a compiler sees pure functions.
"""

from torch import Tensor

from tokensearch.ops import Tokens

_RIDER = "_tokensearch_rider"


def attach_state(tokens: Tokens) -> Tensor:
    """Return the features, with the rest of `tokens` attached."""
    # Without the features themselves: a tensor that refers to itself is freed late.
    setattr(tokens.x, _RIDER, (None, *tokens[1:]))
    return tokens.x


def attach_state_to(x: Tensor, tokens: Tokens) -> Tensor:
    """Return `x`, which stands for `tokens` (as a full grid, say), with them attached."""
    setattr(x, _RIDER, tuple(tokens))
    return x


def read_state(x: Tensor) -> Tokens | None:
    """Return the tokens that `x` carries or stands for; None when nothing is attached."""
    rider = getattr(x, _RIDER, None)
    if rider is None:
        return None
    first, *rest = rider
    return Tokens(x if first is None else first, *rest)


def copy_state(x: Tensor) -> Tensor:
    """Return a copy of `x` and of its token state, which shares no memory with them."""
    twin = x.detach().clone()
    rider = getattr(x, _RIDER, None)
    if rider is not None:
        parts = (None if part is None else part.detach().clone() for part in rider)
        setattr(twin, _RIDER, tuple(parts))
    return twin


def state_bytes(x: Tensor) -> int:
    """Bytes that a copy of `x` and of its token state takes."""
    parts: tuple[Tensor | None, ...] = (x, *(getattr(x, _RIDER, None) or ()))
    return sum(part.numel() * part.element_size() for part in parts if part is not None)
