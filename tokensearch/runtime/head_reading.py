"""What a head reads of the tokens: the class token, an average of timm's, or one of its own code.

timm's `pool` weighs merged tokens by size here (`pooled_head`). Code that is not timm's may average
wherever it likes. It is given the full grid at the end, in which a token stands as often as it has
patches: its plain average is then the average by size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tokensearch.errors import ModelError, first_line
from tokensearch.policy import Policy, Pool, Prune, changes_sizes
from tokensearch.runtime.host import Host, reads_prefix_only
from tokensearch.runtime.pooled_head import POOLS, averages

Reading = Literal["plain", "by_size", "grid"]


@dataclass(frozen=True, eq=False)
class HeadFacts:
    """What a policy relied on of the head when it was applied."""

    model: nn.Module
    prefix_only: bool
    average: bool

    def check(self) -> None:
        """ModelError if the head is another by now, as after `reset_classifier`."""
        if (self.prefix_only, self.average) != _facts(self.model):
            pooling = getattr(self.model, "global_pool", None)
            raise ModelError(
                f"the head of the {type(self.model).__name__} was changed after the policy was "
                f"applied, its global_pool is now {pooling!r}; apply the policy again"
            )


def read_facts(model: nn.Module) -> HeadFacts:
    """Read off what a policy relies on."""
    return HeadFacts(model, *_facts(model))


def _facts(model: nn.Module) -> tuple[bool, bool]:
    return reads_prefix_only(model), averages(model)


def reading_of(host: Host, policy: Policy) -> Reading:
    """Say how tokens must reach the head so that each counts as often as it has patches.

    plain    as they are: the head reads prefix tokens, or no token stands for more than one patch
    by_size  with their sizes, to timm's `pool`
    grid     as the full grid, to code that is not timm's

    ModelError where code that is not timm's reads patch tokens, some of which were discarded.
    """
    merges = any(changes_sizes(step) for step in policy.steps)
    if not merges or policy.last_block == "prefix_only":
        return "plain"
    if _is_timms(host.model):
        return "by_size" if averages(host.model) else "plain"
    reads, pools = _try_head(host)
    if not reads:
        return "plain"
    if pools and averages(host.model):
        return "by_size"
    if all(isinstance(step, Pool | Prune) and changes_sizes(step) for step in policy.steps):
        return "grid"
    raise ModelError(
        f"a {type(host.model).__name__} reads patch tokens in code of its own, which cannot weigh "
        f"merged tokens beside discarded ones; let it average in timm's pool() with "
        f"global_pool='avg', or take a policy that only merges or only discards"
    )


def _is_timms(model: nn.Module) -> bool:
    """Whether all code between the blocks and what comes out is timm's."""
    names = ("forward", "forward_features", "forward_head", *POOLS)
    codes = [getattr(type(model), name) for name in names if hasattr(type(model), name)]
    return not any(name in vars(model) for name in names) and all(
        str(getattr(code, "__module__", "")).startswith("timm.") for code in codes
    )


@torch.no_grad()
def _try_head(host: Host) -> tuple[bool, bool]:
    """Whether the head reads patch tokens, and whether it calls timm's `pool`.

    The model runs on an empty image, with its blocks set aside: they hand on two batches of tokens
    that share their prefix tokens. Outputs differ only if something reads the others.
    """
    model, like = host.model, next(host.model.parameters())
    if like.is_meta:
        return True, False
    shape = (2, host.num_prefix_tokens + host.patch_tokens, host.embed_dim)
    generator = torch.Generator("cpu").manual_seed(0)
    first, other = (torch.randn(shape, generator=generator, device="cpu").to(like) for _ in "ab")
    other[:, : host.num_prefix_tokens] = first[:, : host.num_prefix_tokens]
    calls: list[str] = []
    try:
        outs = []
        for x in (first, other):
            with _blocks_set_aside(host, x, calls):
                outs.append(model(torch.zeros(2, 3, *_image_size(model)).to(like)))
    except Exception as error:  # the user's own code raises what it likes
        raise ModelError(
            f"a {type(model).__name__} cannot be tried on an image, to see what its own code reads "
            f"of merged tokens: {first_line(error)}"
        ) from error
    return not _equal(*outs), bool(calls)


@contextmanager
def _blocks_set_aside(host: Host, x: Tensor, calls: list[str]) -> Iterator[None]:
    """Inside the `with`, the first block returns `x`, the others what they get; pools are noted."""
    model = host.model
    overrides: list[tuple[nn.Module, str, Any]] = [
        (block, "forward", lambda given, *_, **__: given) for block in host.blocks[1:]
    ]
    overrides.append((host.blocks[0], "forward", lambda *_, **__: x))
    for name in POOLS:
        if hasattr(model, name):
            overrides.append((model, name, _noting(getattr(model, name), calls)))
    before = [(module, name, vars(module).get(name)) for module, name, _ in overrides]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for module, name, value in overrides:
            vars(module)[name] = value
        yield
    finally:
        for module, name, own in before:
            if own is None:
                vars(module).pop(name, None)
            else:
                vars(module)[name] = own
        for module, mode in modes:
            module.training = mode


def _noting(pool: Any, calls: list[str]) -> Any:
    def noted(*args: Any, **named: Any) -> Any:
        calls.append("pool")
        return pool(*args, **named)

    return noted


def _image_size(model: Any) -> tuple[int, int]:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        config = getattr(model, "pretrained_cfg", None) or {}
        size = config.get("input_size", (3, 224, 224))[-2:]
    return int(size[0]), int(size[1])


def _equal(first: Any, second: Any) -> bool:
    pairs = zip(pytree.tree_leaves(first), pytree.tree_leaves(second), strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))
