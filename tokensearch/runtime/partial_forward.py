"""Start a pass in the middle: policies that share their first steps share what comes out of them.

What enters a block is captured in one pass and handed to the same block in another. The host's own
forward runs both times: in the second, the blocks before are skipped, its stem is given an image
that nobody looks at, and its head is what it always is.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError, first_line
from tokensearch.runtime.attach import get_reduced_blocks
from tokensearch.runtime.host import as_host
from tokensearch.runtime.reduced_block import ReducedBlock
from tokensearch.runtime.token_state import copy_state

Keep = Callable[[int, Tensor], None]  # called with a block and what enters it
Image = tuple[int, int, int]  # shape of one image: 3, rows, columns
Forward = Callable[..., Tensor]

# Fields of an opened block that name its code, or surround it, and change no value. All others are
# part of the key, those that a later version adds too.
_NO_VALUES = frozenset(
    {"block", "family", "around", "hooks_of_ours", "watched", "spelt_out", "facts"}
)

# Models whose passes were shown to start in the middle.
_CHECKED: WeakSet[nn.Module] = WeakSet()


def entering_key(model: nn.Module, block: int) -> Hashable:
    """Name what `block` of `model` is given, under the policy that the model follows, if any.

    Models with equal weights and equal keys give the block the same bits for the same images, in
    the token state too. Before its first step, every policy has the key of the
    baseline.
    """
    return block, tuple(
        _list_decisions(one) for one in get_reduced_blocks(model) if one.index < block
    )


@contextmanager
def capture_activations(model: nn.Module, blocks: Iterable[int], keep: Keep) -> Iterator[None]:
    """Inside the `with`, call `keep` with each of `blocks` that a pass reaches and what enters it.

    What it is given is the pass's own, (B, P + N, C) with its token state: copy it
    (`token_state.copy_state`) to keep it. The model must keep its policy inside the `with`.
    """
    places = sorted(set(blocks))
    hosts = _blocks(model, places)
    settings = [(hosts[index], _Capturing(index, hosts[index].forward, keep)) for index in places]
    with _forwards((block, one.forward) for block, one in settings):
        yield


@contextmanager
def resume_forward(model: nn.Module, block: int, features: Tensor) -> Iterator[None]:
    """Inside the `with`, passes start at `block`, with `features`, whatever images they are given.

    features  (B, P + N, C), with what rode on it when it was captured under an equal
              `entering_key`; never changed, as every pass works on a copy

    The stem still runs, on images of the size of those that `features` come from; one is enough.
    The model must not be given another policy inside the `with`.
    """
    if model.training:
        raise ModelError(
            f"a {type(model).__name__} in training mode draws dropout anew in every pass, so "
            f"that none can start in the middle; call eval() first"
        )
    hosts = _blocks(model, [block])
    first = _Starting(hosts[block].forward, features)
    settings = [(skipped, _handing_on) for skipped in hosts[:block]]
    with _forwards([*settings, (hosts[block], first.forward)]):
        yield


def logits_from(model: nn.Module, block: int, features: Tensor, *, image: Image) -> Tensor:
    """Run a pass from `block` on, as the host would end it: logits (B, K).

    features  (B, P + N, C), as `resumed` takes it
    image     shape of one of the images that they come from
    """
    with resume_forward(model, block, features):
        logits: Tensor = model(_nothing(model, image))
    return logits


def check_resumes(model: nn.Module, image: Image) -> None:
    """Hold a pass that starts at the last block against a whole one; ModelError if they differ.

    A host that reads more than its blocks hand on, from its stem to its head, say, cannot start in
    the middle. Each model is run once, on two images of noise, under the policy it then follows.
    """
    if model in _CHECKED:
        return
    last = len(as_host(model).blocks) - 1
    held: list[Tensor] = []
    with torch.inference_mode():
        with capture_activations(model, [last], lambda _, x: held.append(copy_state(x))):
            whole = model(_noise(model, image))
        try:
            logits = logits_from(model, last, held[0], image=image)
        except RuntimeError as error:
            raise ModelError(f"{_cannot(model)}: {first_line(error)}") from error
    if not torch.equal(logits, whole):
        raise ModelError(f"{_cannot(model)}: its logits are others then")
    _CHECKED.add(model)


@dataclass(frozen=True, eq=False)
class _Capturing:
    """A block that shows what enters it."""

    index: int
    own: Forward
    keep: Keep

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        self.keep(self.index, x)
        return self.own(x, *args, **named)


@dataclass(frozen=True, eq=False)
class _Starting:
    """A block that takes what it was given before."""

    own: Forward
    features: Tensor

    def forward(self, x: Tensor, *args: Any, **named: Any) -> Tensor:
        del x
        # A copy, since a host's block may write into what enters it.
        return self.own(copy_state(self.features), *args, **named)


def _handing_on(x: Tensor, *args: Any, **named: Any) -> Tensor:
    """Take the place of the forward of a block that is skipped."""
    del args, named
    return x


@contextmanager
def _forwards(settings: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Inside the `with`, modules have other forwards; afterwards, what they had before."""
    with ExitStack() as stack:
        for module, forward in settings:
            stack.callback(_give_back, module, module.__dict__.get("forward"))
            module.__dict__["forward"] = forward  # on the instance, as `apply` does it
        yield


def _give_back(module: nn.Module, own: Forward | None) -> None:
    if own is None:
        del module.__dict__["forward"]
    else:
        module.__dict__["forward"] = own


def _blocks(model: nn.Module, wanted: Iterable[int]) -> tuple[nn.Module, ...]:
    """Return all blocks of `model`, if it has those that are wanted."""
    kind, blocks = type(model).__name__, tuple(as_host(model).blocks)
    for index in wanted:
        if not 0 <= index < len(blocks):
            raise ModelError(
                f"a pass is to be cut before block {index}, but a {kind} has blocks 0 to "
                f"{len(blocks) - 1}"
            )
    return blocks


def _list_decisions(opened: ReducedBlock) -> tuple[Hashable, ...]:
    """Return everything that was decided about a block when it was opened."""
    return tuple(
        getattr(opened, field.name) for field in fields(opened) if field.name not in _NO_VALUES
    )


def _nothing(model: nn.Module, image: Image) -> Tensor:
    """One image that nobody will look at."""
    like = next(model.parameters())
    return torch.zeros(1, *image, device=like.device, dtype=like.dtype)


def _noise(model: nn.Module, image: Image) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(2, *image, generator=generator, device="cpu")
    return noise.to(_nothing(model, image))


def _cannot(model: nn.Module) -> str:
    return f"a pass of a {type(model).__name__} cannot start at its last block"
