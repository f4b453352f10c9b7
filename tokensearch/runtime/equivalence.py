"""Proof that an opened block computes what the host's own block computes.

Run before a block is used, on random input: a timm that changed under us is then a ModelError,
never a wrong number.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError, first_line
from tokensearch.runtime.adapters import find_attention
from tokensearch.runtime.host import is_abstract
from tokensearch.runtime.reduced_block import ReducedBlock

_EXTRA_TOKENS = 6  # patch tokens in the proof's input; the halves do not depend on the number
_SEED = 0

# Largest difference, as a share of the largest output. In double precision both ways agree to
# 1e-14; norms that compute in single precision whatever they are given leave 1e-7.
TOLERANCE = 1e-5

# The same in the block's own number type, for blocks that cannot run in double precision: quantised
# activations are rounded to 1 of 127, and one that falls to the other side moves what follows.
OWN_TOLERANCE = 2e-2

# Blocks that were checked, with what they were made of then and the modules passed over: a search
# applies hundreds of policies to one model, and a check copies the block.
_CHECKED: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], frozenset[str]]] = (
    WeakKeyDictionary()
)


def check_equivalence(opened: ReducedBlock, *, width: int, rotates: bool) -> frozenset[str]:
    """Hold the two halves of a block against its own forward; ModelError if they differ.

    Returns the names of the modules that the host calls and the opened block does not: attention is
    spelt out.

    A copy of the block is compared in double precision and evaluation mode, so that neither the
    model's number type nor its dropout blurs the comparison, and nobody's hooks are called. Only
    quantised blocks, which run in one type alone, are compared in that.
    Nothing can be compared where there are no values (meta device, fake tensors). A block is
    checked once, while its modules stay.
    """
    block = opened.block
    made_of = _made_of(block)
    if block in _CHECKED and _CHECKED[block][0] == made_of:
        return _CHECKED[block][1]
    if any(map(is_abstract, block.parameters())):
        parts = block.named_modules()
        return frozenset(name for name, part in parts if "Attention" in type(part).__name__)
    shape = (2, opened.prefix + _EXTRA_TOKENS, width)
    try:
        bypassed, differences = _compare_in(torch.float64, opened, shape, rotates=rotates)
        allowed = TOLERANCE
    except _CANNOT_RUN:
        try:
            kind = next(block.parameters()).dtype
            bypassed, differences = _compare_in(kind, opened, shape, rotates=rotates)
            allowed = OWN_TOLERANCE
        except _CANNOT_RUN as error:
            raise ModelError(
                f"block {opened.index}, a {type(block).__name__}, cannot be opened: "
                f"{first_line(error)}; apply the policy before its weights are converted, "
                f"quantised or sharded"
            ) from error
    _check_difference(max(differences), allowed, opened)
    _CHECKED[block] = made_of, bypassed
    return bypassed


_CANNOT_RUN = (
    AttributeError,
    NotImplementedError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    AssertionError,
)


def _compare_in(
    kind: torch.dtype, opened: ReducedBlock, shape: tuple[int, ...], *, rotates: bool
) -> tuple[frozenset[str], list[float]]:
    """Names of what is passed over, and differences as shares of the largest output."""
    twin = _twin(opened.block, kind)
    like = next(twin.parameters())
    x = _noise(*shape).to(like.device, kind)
    rope = _rotations(twin).to(like.device, kind) if rotates else None
    with torch.no_grad():
        with _counting(twin) as host_calls:
            host = opened.family.call(twin, x, rope)
        with _counting(twin) as calls:
            _run_opened(opened, twin, x, rope, queries=None)
        whole = _run_opened(opened, twin, x, rope, queries=None)
        first = _run_opened(opened, twin, x, rope, queries=opened.prefix or None)
    scale = host.abs().max().item() or 1.0
    pairs = (whole, host), (first, host[:, : opened.prefix or None])
    differences = [(one - other).abs().max().item() / scale for one, other in pairs]
    return frozenset(host_calls - calls), differences


@contextmanager
def _counting(twin: nn.Module) -> Iterator[Counter[str]]:
    """Count the calls of every module within a block."""
    calls: Counter[str] = Counter()
    hooks = [
        part.register_forward_pre_hook(partial(_count, calls, name))
        for name, part in twin.named_modules()
        if name
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _count(calls: Counter[str], name: str, *_: object) -> None:
    calls[name] += 1


def _made_of(block: nn.Module) -> tuple[object, ...]:
    """Modules inside a block, and the settings of each: what its code depends on beside weights."""
    plain = (bool, int, float, str, type(None))
    return tuple(
        (part if part is not block else None, name, value)
        for part in block.modules()
        for name, value in sorted(vars(part).items())
        if isinstance(value, plain) and name != "training"
    )


def _twin(block: nn.Module, kind: torch.dtype) -> nn.Module:
    """Return a copy in another number type and evaluation mode, without hooks."""
    memo = {key: value for part in block.modules() for key, value in _copies(part)}
    twin = copy.deepcopy(block, memo).to(kind).eval()
    for part in twin.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(part, name, value.to(kind))
    return twin


def _copies(part: nn.Module) -> Iterator[tuple[int, Any]]:
    """Yield what `copy.deepcopy` is to take for a copy of what it cannot copy, by `id`.

    What a module computed of its parameters and keeps as an attribute (`torch.nn.utils.prune`,
    `weight_norm`) is copied as it is.
    """
    for name, value in vars(part).items():
        if "_hooks" in name and isinstance(value, dict):
            yield id(value), type(value)()  # none: a hook may hold what cannot be copied
        elif isinstance(value, Tensor) and not value.is_leaf:
            yield id(value), value.detach().clone()
    for parameter in part.parameters(recurse=False):
        if parameter.layout != torch.strided:
            yield id(parameter), nn.Parameter(parameter.detach().clone(), requires_grad=False)


def _noise(*shape: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(_SEED)
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")


def _rotations(block: nn.Module) -> Tensor:
    """Sines and cosines of random angles, one for each feature of a head."""
    angles = _noise(_EXTRA_TOKENS, int(find_attention(block).head_dim))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _run_opened(
    opened: ReducedBlock,
    twin: nn.Module,
    x: Tensor,
    rope: Tensor | None,
    *,
    queries: int | None,
) -> Tensor:
    """Output of the opened block for all tokens, or for the first `queries` alone."""
    family = opened.family
    attended = family.attend(twin, x, bias=None, queries=queries, rope=rope)
    return family.finish(twin, attended.x)


def _check_difference(difference: float, allowed: float, opened: ReducedBlock) -> None:
    if not difference <= allowed:
        kind = type(opened.block)
        raise ModelError(
            f"block {opened.index}, a {kind.__module__}.{kind.__name__}, differs by "
            f"{difference:.2g} of its largest output from its own forward when opened; this "
            f"version of it is not supported"
        )
