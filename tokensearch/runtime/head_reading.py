"""What a head reads of the tokens: the class token, an average of timm's, or one of its own code.

timm's `pool` weighs merged tokens by size here (`pooled_head`). Code that is not timm's may average
wherever it likes. It is given the full grid at the end, in which a token stands as often as it has
patches: its plain average is then the average by size.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tokensearch.errors import ModelError, first_line
from tokensearch.ops import Tokens
from tokensearch.policy import Policy, Pool, Prune, changes_sizes
from tokensearch.runtime.host import Host, is_abstract, reads_prefix_only
from tokensearch.runtime.pooled_head import POOLS, averages, list_overrides
from tokensearch.runtime.token_state import attach_state
from tokensearch.runtime.towers import Tower, is_untouched, resampling

Reading = Literal["plain", "by_size", "grid"]
Override = tuple[nn.Module, str, Callable[..., Any]]  # what to set on which module


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a policy relied on of a model when it was applied."""

    model: nn.Module
    prefix_only: bool
    average: bool
    last: nn.Module  # block that was opened: of earlier ones, counts of tokens tell
    index: int  # of that block

    def check(self) -> None:
        """ModelError if head or blocks are others by now, as after `reset_classifier`."""
        kind = type(self.model).__name__
        if (self.prefix_only, self.average) != (
            reads_prefix_only(self.model),
            averages(self.model),
        ):
            pooling = getattr(self.model, "global_pool", None)
            raise ModelError(
                f"the head of the {kind} was changed after the policy was applied, its "
                f"global_pool is now {pooling!r}; apply the policy again"
            )
        blocks: Any = self.model.blocks
        now = blocks[self.index] if self.index < len(blocks) else None
        if now is not self.last and (now is None or self.last not in set(now.modules())):
            raise ModelError(
                f"block {self.index} of the {kind} was replaced after the policy was applied; "
                f"apply the policy again"
            )


def read_facts(model: nn.Module, last: nn.Module, index: int) -> ModelFacts:
    """Read off what a policy relies on that opens the block `last`, at `index`, and none after."""
    return ModelFacts(model, reads_prefix_only(model), averages(model), last, index)


def list_layouts(model: nn.Module) -> Iterator[Override]:
    """Yield what to set on a model whose tokens no longer fill the grid that it lays out."""
    name = "forward_intermediates"
    if hasattr(model, name):
        yield model, name, _LayingOut(getattr(model, name)).forward


@dataclass(frozen=True, eq=False)
class _LayingOut:
    """timm's `forward_intermediates`, which makes images of features."""

    host: Callable[..., Any]

    def forward(self, *args: Any, **named: Any) -> Any:
        try:
            return self.host(*args, **named)
        except RuntimeError as error:
            if "is invalid for input of size" not in str(error):  # of a reshape
                raise
            raise ModelError(
                "under the policy blocks hand out fewer tokens than the grid of patches has; take "
                "output_fmt='NLC', or apply the policy with dense=True"
            ) from error


def reading_of(host: Host, policy: Policy) -> Reading:
    """Say how tokens must reach the head so that each counts as often as it has patches.

    plain    as they are: the head reads prefix tokens, or no token stands for more than one patch
    by_size  with their sizes, to timm's `pool`
    grid     as the full grid, to code that is not timm's

    ModelError where code that is not timm's reads patch tokens, some of which were discarded.
    """
    merges = any(changes_sizes(step) for step in policy.steps)
    skips = policy.last_block == "prefix_only"
    if not (merges or skips):
        return "plain"
    if _is_timms(host.model):
        return "by_size" if averages(host.model) else "plain"
    reads, pools = _try_head(host)
    if reads and host.tower is not None and is_untouched(host.model, host.tower):
        return _reading_of_tower(host, host.tower)
    if reads and skips:
        raise ModelError(
            f"last_block is prefix_only, but a {type(host.model).__name__} reads patch tokens in "
            f"code of its own"
        )
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


def _reading_of_tower(host: Host, tower: Tower) -> Reading:
    """Say how a head of transformers that reads patch tokens is given them, by its own average."""
    if tower.reads == "all":
        return "plain"  # as timm's attention pooling
    if tower.reads == "prefix":
        if _is_abstract(host):
            return "plain"
        raise ModelError(
            f"the head of a {type(host.model).__name__} reads patch tokens, which it did not in "
            f"the versions of transformers that are supported"
        )
    if not _is_abstract(host):
        _check_average(host)
    return "by_size"


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
    if _is_abstract(host):
        return True, False
    like = next(host.model.parameters())
    shape = (2, host.num_prefix_tokens + host.patch_tokens, host.embed_dim)
    generator = torch.Generator("cpu").manual_seed(0)
    first, other = (torch.randn(shape, generator=generator, device="cpu").to(like) for _ in "ab")
    other[:, : host.num_prefix_tokens] = first[:, : host.num_prefix_tokens]
    calls: list[str] = []
    noting = [
        (host.model, name, _noting(getattr(host.model, name), calls))
        for name in POOLS
        if hasattr(host.model, name)
    ]
    outs = [_run_head(host, x, noting) for x in (first, other)]
    # Tokens that are handed out as they are, as transformers' towers do, are not read.
    tokens = first.shape if host.tower is not None else None
    pairs = zip(*outs, strict=True)
    return not all(torch.equal(a, b) for a, b in pairs if a.shape != tokens), bool(calls)


@torch.no_grad()
def _check_average(host: Host) -> None:
    """Hold the average by size against the host's own average of the full grid.

    Two images of six tokens, of one to three patches each. ModelError where a head gives other
    outputs for tokens with sizes than for each token repeated as often as it has patches.
    """
    prefix, like = host.num_prefix_tokens, next(host.model.parameters())
    generator = torch.Generator("cpu").manual_seed(0)
    shape = (2, prefix + 6, host.embed_dim)
    x = torch.randn(shape, generator=generator, device="cpu").to(like)
    counts = [[1] * prefix + patches for patches in ([1, 2, 3, 1, 2, 3], [3, 3, 1, 1, 2, 2])]
    sizes = torch.tensor(counts, device=x.device)
    grid = torch.stack([row.repeat_interleave(n, dim=0) for row, n in zip(x, sizes, strict=True)])
    whole = _run_head(host, grid, ())
    sized = attach_state(Tokens(x, size=sizes.unsqueeze(-1).to(x)))
    own = _run_head(host, sized, list(list_overrides(host.model)))
    for expected, output in zip(whole, own, strict=True):
        if expected.shape != grid.shape and not torch.allclose(
            expected, output, atol=_AVERAGE_TOLERANCE * float(expected.abs().max()), rtol=0.0
        ):
            raise ModelError(
                f"the head of a {type(host.model).__name__} is not the average of patch tokens "
                f"that it was in the versions of transformers that are supported"
            )


# Largest difference, as a share of the largest output: half precision rounds to 1 of 256.
_AVERAGE_TOLERANCE = 2e-2


def _is_abstract(host: Host) -> bool:
    return is_abstract(next(host.model.parameters()))


def _run_head(host: Host, x: Tensor, overrides: Iterable[Override]) -> list[Tensor]:
    """Run the model on an empty image, its first block returning `x`: all tensors that come out."""
    model, like = host.model, next(host.model.parameters())
    try:
        with _blocks_set_aside(host, x, overrides):
            more = {} if host.tower is None else resampling(model)
            out = model(torch.zeros(2, 3, *_image_size(host)).to(like), **more)
    except Exception as error:  # the user's own code raises what it likes
        raise ModelError(
            f"a {type(model).__name__} cannot be tried on an image, to see what its own code reads "
            f"of merged tokens: {first_line(error)}"
        ) from error
    return [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)]


@contextmanager
def _blocks_set_aside(host: Host, x: Tensor, more: Iterable[Override]) -> Iterator[None]:
    """Inside the `with`, the first block returns `x`, the others what they get."""
    model = host.model
    overrides: list[Override] = [
        (block, "forward", lambda given, *_, **__: given) for block in host.blocks[1:]
    ]
    overrides.append((host.blocks[0], "forward", lambda *_, **__: x))
    overrides.extend(more)
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


def _image_size(host: Host) -> tuple[int, int]:
    if host.tower is not None:
        return host.tower.image_size
    model: Any = host.model
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if size is None:
        config = getattr(model, "pretrained_cfg", None) or {}
        size = config.get("input_size", (3, 224, 224))[-2:]
    return int(size[0]), int(size[1])
