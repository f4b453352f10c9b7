"""Resume passes at the first block that differs, from cached activations."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from tokensearch.errors import MeasurementError
from tokensearch.policy import Policy
from tokensearch.runtime import (
    capture_activations,
    check_resumes,
    entering_key,
    logits_from,
    policy_of,
)
from tokensearch.runtime.partial_forward import Image
from tokensearch.runtime.token_state import copy_state, state_bytes


@dataclass
class PrefixCache:
    """Tensors by key, with what rides on them; those that were not used for longest go first.

    One holds what one model computes with one set of weights, in one number type, on one device. A
    tensor is copied when it is put in, so that nothing that is done to the original afterwards
    reaches it; who takes one out must not write into it (`runtime.resumed` copies it again).

    Args:
        most_bytes: Bound of what is held, riders included. A tensor that is larger is not kept.
    """

    most_bytes: int
    hits: int = 0  # of `first`: one of the keys was held
    misses: int = 0  # none was
    bytes: int = 0  # held now
    _held: OrderedDict[Hashable, Tensor] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held

    def first(self, keys: Iterable[Hashable]) -> tuple[int, Tensor] | None:
        """Return the first of `keys` that is held, by its place among them, and its tensor."""
        for place, key in enumerate(keys):
            if key in self._held:
                self.hits += 1
                self._held.move_to_end(key)
                return place, self._held[key]
        self.misses += 1
        return None

    def put(self, key: Hashable, x: Tensor) -> None:
        """Keep a copy of `x`, as what was used last; others go until it fits.

        What is already held under `key` stays: equal keys mean equal tensors.
        """
        if key in self._held:
            self._held.move_to_end(key)
            return
        size = state_bytes(x)
        if size > self.most_bytes:
            return
        while self.bytes + size > self.most_bytes:
            _, oldest = self._held.popitem(last=False)
            self.bytes -= state_bytes(oldest)
        self._held[key] = copy_state(x)
        self.bytes += size

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self.bytes = 0


@dataclass(frozen=True)
class Batch:
    """Images that have a name, and are loaded only when a pass needs them.

    Batches that are cut differently are different: matrix products of another size round otherwise.
    """

    split: str  # digest
    first: int  # place of the first image in the split
    count: int  # B
    image: Image  # shape of each: 3, rows, columns
    load: Callable[[], Tensor] = field(compare=False)  # -> (B, 3, rows, columns), as the model's

    def images(self) -> Tensor:
        """Load the images; MeasurementError if they are not what the name says."""
        images, named = self.load(), (self.count, *self.image)
        if tuple(images.shape) != named:
            raise MeasurementError(
                f"a batch was loaded as {tuple(images.shape)}, where {named} was promised"
            )
        return images


def logits_with_reuse(model: nn.Module, batch: Batch, store: PrefixCache) -> Tensor:
    """Return what `model`, under the policy that it follows, answers to a batch: (B, K).

    The same bits as those of a whole pass. The pass starts at the deepest block for which `store`
    holds what enters it, and leaves there what enters each later block that reduces.

    Raises:
        ModelError: The model cannot start in the middle.
        MeasurementError: The batch is not what its name says.
    """
    policy = policy_of(model)
    if policy is None:
        return _whole(model, batch)
    blocks = range(policy.model.blocks)[::-1]
    found = store.first(_key(model, batch, block) for block in blocks)
    if found is None:
        return fill(model, batch, boundaries(policy), store)
    place, features = found
    start = blocks[place]
    check_resumes(model, batch.image)  # before anything is captured: it makes passes of its own
    later = [block for block in boundaries(policy) if block > start]
    with capture_activations(model, later, _keeping(model, batch, store)):
        return logits_from(model, start, features, image=batch.image)


def fill(model: nn.Module, batch: Batch, blocks: Iterable[int], store: PrefixCache) -> Tensor:
    """Run one whole pass, leave in `store` what enters each of `blocks`, and return its logits.

    Of a model that follows no policy, these are the blocks at which any policy may begin to reduce.
    """
    with capture_activations(model, blocks, _keeping(model, batch, store)):
        return _whole(model, batch)


def boundaries(policy: Policy) -> tuple[int, ...]:
    """Blocks that reduce: policies that differ from `policy` in one of them share all before."""
    reducing = {step.block for step in policy.steps}
    if policy.last_block == "prefix_only":
        reducing.add(policy.model.blocks - 1)
    return tuple(sorted(reducing))


def _whole(model: nn.Module, batch: Batch) -> Tensor:
    whole: Tensor = model(batch.images())
    return whole


def _keeping(model: nn.Module, batch: Batch, store: PrefixCache) -> Callable[[int, Tensor], None]:
    return lambda block, x: store.put(_key(model, batch, block), x)


def _key(model: nn.Module, batch: Batch, block: int) -> Hashable:
    return batch, entering_key(model, block)
