"""Average-pooled heads: a token that stands for many patches counts as many.

ToMe and DiffRate weigh the average of their MAE models by size. Other heads read what they read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError
from tokensearch.runtime.token_state import attach_state, read_state
from tokensearch.runtime.towers import tower_of

_AVERAGES = frozenset({"avg", "avgmax"})
POOLS = ("pool", "_pool")  # what timm's models call the method


def averages(model: nn.Module) -> bool:
    """Whether the head reads the mean of the tokens."""
    tower = tower_of(model)
    if tower is not None:
        return tower.reads == "average"
    return getattr(model, "global_pool", None) in _AVERAGES and (
        getattr(model, "attn_pool", None) is None
    )


def list_overrides(model: nn.Module) -> Iterator[tuple[nn.Module, str, Callable[..., Any]]]:
    """Yield what to set on which module so that its average goes by size."""
    tower = tower_of(model)
    norm = getattr(model, "norm", None) if tower is None else tower.norm
    if norm is not None and not isinstance(norm, nn.Identity):
        yield norm, "forward", _Carrying(norm.forward).forward
    if tower is not None:
        yield tower.module, "forward", _Scaling(tower.module.forward, tower.prefix_tokens).forward
        return
    name = next((name for name in POOLS if hasattr(model, name)), None)
    if name is not None:
        yield model, name, _Weighing(model, getattr(model, name)).pool


@dataclass(frozen=True, eq=False)
class _Carrying:
    """The last norm, whose output carries the token state of its input."""

    host: Callable[[Tensor], Tensor]

    def forward(self, x: Tensor) -> Tensor:
        out, tokens = self.host(x), read_state(x)
        return out if tokens is None else attach_state(tokens._replace(x=out))


@dataclass(frozen=True, eq=False)
class _Weighing:
    """The head's average, by size."""

    model: Any
    host: Callable[..., Tensor]

    def pool(self, x: Tensor, pool_type: str | None = None, **named: Any) -> Tensor:
        kind = self.model.global_pool if pool_type is None else pool_type
        if kind not in _AVERAGES:
            return self.host(x, pool_type, **named)
        sizes = _sizes_of(x)
        if sizes is None:  # every token is one patch
            return self.host(x, pool_type, **named)
        whole = getattr(self.model, "pool_include_prefix", False)
        first = 0 if whole else self.model.num_prefix_tokens
        part, size = x[:, first:], sizes[:, first:]
        # Shares before sums: in half precision a sum of many would overflow.
        mean = (part * (size / size.sum(dim=1, keepdim=True))).sum(dim=1)
        if kind == "avg":
            return mean
        return 0.5 * (part.masked_fill(size == 0, -torch.inf).amax(dim=1) + mean)


@dataclass(frozen=True, eq=False)
class _Scaling:
    """A tower of transformers whose patch tokens are scaled, so that their mean goes by size."""

    host: Callable[..., Any]
    prefix: int

    def forward(self, *args: Any, **named: Any) -> Any:
        out = self.host(*args, **named)
        x: Tensor = out.last_hidden_state
        sizes = _sizes_of(x)
        if sizes is None:  # every token is one patch
            return out
        size = sizes[:, self.prefix :]
        weight = size * (size.shape[1] / size.sum(dim=1, keepdim=True))
        patches = (x[:, self.prefix :] * weight).to(x.dtype)
        out.last_hidden_state = torch.cat([x[:, : self.prefix], patches], dim=1)
        return out


def _sizes_of(x: Tensor) -> Tensor | None:
    tokens = read_state(x)
    if tokens is None:
        raise ModelError(
            "the head averages tokens by size, but something before it made new features "
            "(a hook, a copy, a norm that was replaced), which know no sizes; apply the policy "
            "again, after such changes"
        )
    return tokens.size
