"""What a pass computes and moves, counted operator by operator; and what the machine could do.

Together they place a phase on a roofline (Williams, Waterman & Patterson, "Roofline", 2009): how
close it comes to the fastest product and the fastest copy that were measured here.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from tokensearch.measure.clock import Clock, Run
from tokensearch.records.profile import OUTSIDE, Ceilings, Phase, Scope, Work


def _attention_flop(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """Operations of attention: queries with keys, and what comes of it with values."""
    images, heads, queries, width = query.shape
    return 2 * images * heads * queries * key.shape[2] * (width + value.shape[3])


# The registry of torch 2.11 lacks the CPU's attention, which later ones have.
FORMULAS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop
} | flop_registry

UNSAFE_VIEW = torch.ops.aten._unsafe_view  # a view, though it does not say so

# Large enough that a product is bound by arithmetic and a copy (128 MB in single precision) fits no
# cache, small enough that a slow core takes a second at most; a GPU needs more to be busy. As many
# are put into one span as take a few milliseconds.
PRODUCT_ROWS, PRODUCT_ROWS_GPU = 2048, 8192
SPAN_MS = 5.0
COPY_NUMBERS, COPY_BYTES_GPU = 2**25, 2**30
COPY_SHARE_GPU = 0.25  # of the free memory at most: the copy takes as much again
CEILING_PASSES = 5  # the best of them: a ceiling is what can be reached


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Counts what runs inside the `with`, by the innermost range open at the time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self._inside: list[Scope] = []
        self._flop: dict[Scope, float] = defaultdict(float)
        self._bytes: dict[Scope, float] = defaultdict(float)

    @contextmanager
    def _range(self, scope: Scope) -> Iterator[None]:
        self._inside.append(scope)
        try:
            yield
        finally:
            self._inside.pop()

    def around(self, block: int, phase: Phase) -> AbstractContextManager[object]:
        """Return a range around one phase of one block: what `runtime.phase_ranges` asks for."""
        return self._range((block, phase))

    def __torch_dispatch__(
        self,
        func: Any,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run one operator, and note its work."""
        named = dict(kwargs or {})
        if func.overloadpacket not in FORMULAS:
            with self:  # a linear layer, say, is a product to be counted: look inside
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **named)
        scope = self._inside[-1] if self._inside else OUTSIDE
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self._flop[scope] += formula(*args, **named, out_val=out)
        if not func.is_view and func.overloadpacket is not UNSAFE_VIEW:
            self._bytes[scope] += _bytes(args) + _bytes(named) + _bytes(out)
        return out

    @property
    def work(self) -> tuple[Work, ...]:
        """What was counted, in the order in which it was met."""
        scopes = dict.fromkeys([*self._bytes, *self._flop])
        return tuple(Work(*scope, self._flop[scope], self._bytes[scope]) for scope in scopes)


def _bytes(values: Any) -> int:
    return sum(_stored(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _stored(tensor: Tensor) -> int:
    """Bytes behind a tensor: what is expanded lies in memory once."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * prod(size if step else min(size, 1) for size, step in strides)


def measure_ceilings(device: torch.device, dtype: torch.dtype, clock: Clock) -> Ceilings:
    """Measure the fastest product and the fastest copy of this device, in this number type.

    Of random numbers: ones take a GPU less power, and so let it run at higher clocks.
    """
    rows, numbers = _sizes(device, dtype)
    # Not from the default generator: on a GPU a failed capture leaves that one unusable.
    dice = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(rows, rows, device=device, dtype=dtype, generator=dice) for _ in "ab"
    )
    source = left.flatten().repeat(-(-numbers // left.numel()))[:numbers]
    target = torch.empty_like(source)
    product_ms = _best_ms(lambda: left @ right, clock)
    copy_ms = _best_ms(lambda: target.copy_(source), clock)
    moved = 2 * source.numel() * source.element_size()
    return Ceilings(2 * rows**3 / product_ms / 1e6, moved / copy_ms / 1e6)


def _sizes(device: torch.device, dtype: torch.dtype) -> tuple[int, int]:
    """Rows of the product's squares, and numbers of the copy."""
    if device.type != "cuda":
        return PRODUCT_ROWS, COPY_NUMBERS
    free, _ = torch.cuda.mem_get_info(device)
    return PRODUCT_ROWS_GPU, int(min(COPY_BYTES_GPU, COPY_SHARE_GPU * free)) // dtype.itemsize


def _best_ms(run: Run, clock: Clock) -> float:
    """Fastest of a few spans, per run."""
    run()
    times = max(1, round(SPAN_MS / clock.time_ms(run)))

    def span() -> None:
        for _ in range(times):
            run()

    return min(clock.time_ms(span) for _ in range(CEILING_PASSES)) / times
