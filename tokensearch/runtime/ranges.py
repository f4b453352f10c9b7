"""Ranges around the host's own modules inside a block: norms, and the projections of attention."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch import nn
from torch.profiler import record_function

from tokensearch.profiles import Phase, range_name
from tokensearch.runtime.opened import Around

# What timm calls them, over all families that can be opened.
_PHASES: dict[str, Phase] = {
    "norm": "norm",
    "norm1": "norm",
    "norm2": "norm",
    "q_norm": "norm",
    "k_norm": "norm",
    "in_norm": "norm",
    "qkv": "qkv",
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "proj": "projection",
    "attn_out_proj": "projection",
}


def traced_range(block: int, phase: Phase) -> AbstractContextManager[object]:
    """Return the PyTorch profiler's range around one phase of one block."""
    return record_function(range_name(block, phase))


@contextmanager
def parts_ranged(blocks: Iterable[nn.Module], around: Around) -> Iterator[None]:
    """Inside the `with`, norms and projections of attention run inside ranges of their own.

    They are nested in the ranges of attention and MLP. Inside an MLP nothing is told apart.
    """
    hooks = []
    for place, block in enumerate(blocks):
        for name, part in block.named_modules():
            phase = _PHASES.get(name.rpartition(".")[2])
            if phase is None or "mlp" in name or isinstance(part, nn.Identity):
                continue
            enter, leave = _border(around, place, phase)
            hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _border(around: Around, place: int, phase: Phase) -> tuple[Any, Any]:
    """Hooks that open a range before a module runs, and close it after."""
    opened: list[AbstractContextManager[object]] = []

    def enter(*_: object) -> None:
        opened.append(around(place, phase))
        opened[-1].__enter__()

    def leave(*_: object) -> None:
        opened.pop().__exit__(None, None, None)

    return enter, leave
