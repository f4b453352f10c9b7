"""The value that token operators work on, and how tokens are followed through them.

House letters, here and everywhere: B images, P prefix tokens, N patch tokens, C width, H heads,
D features per head, T = P + N, K tokens kept, G patches of the whole image.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

from tokensearch.ops.fused import is_jit_tracing

P = ParamSpec("P")
R = TypeVar("R")


class Tokens(NamedTuple):
    """A batch of token sequences: P prefix (class, register) tokens, then N patch tokens.

    Everything but the features is None unless somebody needs it.
    """

    x: Tensor  # (B, P + N, C) features
    size: Tensor | None = None  # (B, P + N, 1) patches each token stands for; None: one each
    position: Tensor | None = None  # (B, N) the patch whose position each token has; None: its own
    source: Tensor | None = None  # (B, G) patch token that holds each patch, -1 where discarded
    last: Tensor | None = None  # (B, G, C) features of discarded patches when they went
    log_size: Tensor | None = None  # (B, P + N, 1) logarithm of `size`, where it came for nothing


class Moves(NamedTuple):
    """Where tokens went in one operator. Row numbers count prefix and patch tokens."""

    first: Tensor  # (B, P + K) the old row whose position each new token takes
    row: Tensor  # (B, P + N) the new row that holds each old token, -1 where it was discarded
    discards: bool = False  # whether any row is -1


def in_own_type(operator: Callable[P, R]) -> Callable[P, R]:
    """Let an operator compute in the number type of what it is given first, Tokens or a tensor.

    Autocast lowers products and, on CUDA, raises sums and logarithms: a model in half precision
    would be handed another type, or the two would meet in one product.
    """

    @wraps(operator)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0]
        x = first.x if isinstance(first, Tokens) else first
        assert isinstance(x, Tensor)
        if x.is_meta or not torch.is_autocast_enabled(x.device.type):
            return operator(*args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return operator(*args, **kwargs)

    return run


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick rows, per image.

    values  (B, T, C)
    index   (B, K)     row numbers below T
    ->      (B, K, C)

    Whole rows are copied; `gather` with an expanded index moves one element at a time.
    """
    images, rows, width = values.shape
    if torch.onnx.is_in_onnx_export() and is_jit_tracing():  # shapes are the example's there
        return values.gather(1, index[..., None].expand(-1, -1, width))
    first = torch.arange(0, images * rows, rows, device=index.device)[:, None]
    picked = values.reshape(images * rows, width).index_select(0, (index + first).flatten())
    return picked.view(images, index.shape[1], width)


def is_tracked(before: Tokens) -> bool:
    """Whether anybody wants to know where tokens go."""
    return before.position is not None or before.source is not None


def follow_moves(before: Tokens, after: Tokens, moves: Moves, *, prefix: int) -> Tokens:
    """Return `after` with the positions and sources that `moves` gives it from `before`."""
    position, source, last = before.position, before.source, before.last
    if position is not None:
        position = position.gather(1, moves.first[:, prefix:] - prefix)
    if source is not None:
        if moves.discards:
            last = restore_grid(before, prefix=prefix)[:, prefix:]
        row = moves.row[:, prefix:].gather(1, source.clamp(min=0)) - prefix
        source = torch.where((source < 0) | (row < 0), -1, row)
    return after._replace(position=position, source=source, last=last)


def cut(tokens: Tokens, length: int) -> Tokens:
    """Keep the first `length` tokens, whatever they hold: counts without the price of choosing."""
    x, size, position = tokens[:3]
    prefix = 0 if position is None else x.shape[1] - position.shape[1]
    return Tokens(
        x[:, :length].contiguous(),
        None if size is None else size[:, :length],
        None if position is None else position[:, : length - prefix],
    )


def start_tokens(x: Tensor, *, prefix: int, places: bool, sources: bool) -> Tokens:
    """Return the tokens that enter the first block; every patch token is its own patch.

    x  (B, P + G, C)
    """
    if not places and not sources:
        return Tokens(x)
    images, length, _ = x.shape
    own = torch.arange(length - prefix, device=x.device).expand(images, -1)
    return Tokens(x, position=own if places else None, source=own if sources else None)


def unmerge(x: Tensor, source: Tensor, *, prefix: int) -> Tensor:
    """Give every patch of the image the features of the token that holds it.

    x       (B, P + N, C)
    source  (B, G)         patch token that holds each patch; -1 where it was discarded
    ->      (B, P + G, C)  prefix tokens, then patches; zeros where discarded
    """
    patches = take(x[:, prefix:], source.clamp(min=0)).masked_fill((source < 0)[..., None], 0)
    return torch.cat([x[:, :prefix], patches], dim=1)


def restore_grid(tokens: Tokens, *, prefix: int) -> Tensor:
    """Return the full grid (B, P + G, C): `unmerge`, and a discarded patch as it was when it went.

    That is what dense heads are given in Cropr (arXiv:2412.00965), where discarded tokens join the
    others again before the end.
    """
    assert tokens.source is not None
    grid = unmerge(tokens.x, tokens.source, prefix=prefix)
    if tokens.last is None:  # nothing was discarded
        return grid
    patches = torch.where((tokens.source < 0)[..., None], tokens.last, grid[:, prefix:])
    return torch.cat([grid[:, :prefix], patches], dim=1)
