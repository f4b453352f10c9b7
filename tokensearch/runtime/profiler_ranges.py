"""Ranges around what blocks do: hooks on the host's modules, where a block is not opened.

An opened block puts ranges around its own phases. One that runs the host's code is split in the
same place, where what `BlockFamily.finish` does begins. In both, norms and the projections of
attention are nested ranges.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from torch import nn
from torch.profiler import record_function
from torch.utils.hooks import RemovableHandle

from tokensearch.records.profile import Phase, range_name
from tokensearch.runtime.adapters import family_of
from tokensearch.runtime.reduced_block import Around

# What timm and transformers call them, over all families that can be opened.
_PHASES: dict[str, Phase] = {
    "norm": "norm",
    "norm1": "norm",
    "norm2": "norm",
    "q_norm": "norm",
    "k_norm": "norm",
    "in_norm": "norm",
    "layernorm_before": "norm",
    "layernorm_after": "norm",
    "layer_norm1": "norm",
    "layer_norm2": "norm",
    "qkv": "qkv",
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "proj": "projection",
    "o_proj": "projection",
    "out_proj": "projection",
    "attn_out_proj": "projection",
}

Range = Callable[[], AbstractContextManager[object]]


def traced_range(block: int, phase: Phase) -> AbstractContextManager[object]:
    """Return the PyTorch profiler's range around one phase of one block."""
    return record_function(range_name(block, phase))


@contextmanager
def block_ranges(blocks: Iterable[nn.Module], around: Around) -> Iterator[None]:
    """Inside the `with`, hooks put ranges around the host's own code, opened blocks included."""
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            for hook in (*_halves(block, index, around), *_parts(block, index, around)):
                stack.callback(hook.remove)
        yield


def _halves(block: nn.Module, index: int, around: Around) -> Iterator[RemovableHandle]:
    """Split a block that is not opened in two: attention, and what comes after it."""
    family = family_of(block)
    if family is None or "forward" in block.__dict__:  # an opened block has ranges of its own
        return
    now = _Now()
    yield block.register_forward_pre_hook(lambda *_: now.enter(around(index, "attention")))
    if family.second is not None:
        second = block.get_submodule(family.second)
        yield second.register_forward_pre_hook(lambda *_: now.turn(around(index, "mlp")))
    yield block.register_forward_hook(lambda *_: now.leave())


def _parts(block: nn.Module, index: int, around: Around) -> Iterator[RemovableHandle]:
    """Norms and projections. Inside an MLP nothing is told apart."""
    for name, part in block.named_modules():
        phase = _PHASES.get(name.rpartition(".")[2])
        if phase is not None and "mlp" not in name and not isinstance(part, nn.Identity):
            yield from _around(part, partial(around, index, phase))


def _around(part: nn.Module, opens: Range) -> Iterator[RemovableHandle]:
    now = _Now()
    yield part.register_forward_pre_hook(lambda *_: now.enter(opens()))
    yield part.register_forward_hook(lambda *_: now.leave())


class _Now:
    """The range that is open. Its methods return None: hooks that return replace the data."""

    def __init__(self) -> None:
        self._open: AbstractContextManager[object] | None = None

    def enter(self, context: AbstractContextManager[object]) -> None:
        self._open = context
        context.__enter__()

    def leave(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def turn(self, other: AbstractContextManager[object]) -> None:
        self.leave()
        self.enter(other)
