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
    """Least-recently-used cache of activations by key, each with its token state.

    A cache belongs to one model with one set of weights, one number type and one device. A tensor
    is copied on `put`, so later writes to the original do not reach it. Whoever reads one must not
    write into it (`runtime.logits_from` copies it again).

    Args:
        max_bytes: Bound of all tensors with their token state. A larger tensor is not cached.
    """

    max_bytes: int
    hits: int = 0  # calls of `find_first` that found a key
    misses: int = 0  # calls that found none
    bytes: int = 0  # cached now
    _entries: OrderedDict[Hashable, Tensor] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def find_first(self, keys: Iterable[Hashable]) -> tuple[int, Tensor] | None:
        """Return the index of the first of `keys` that is cached, and its tensor."""
        for index, key in enumerate(keys):
            if key in self._entries:
                self.hits += 1
                self._entries.move_to_end(key)
                return index, self._entries[key]
        self.misses += 1
        return None

    def put(self, key: Hashable, x: Tensor) -> None:
        """Cache a copy of `x` as the most recently used; the least recently used make room.

        An entry already cached under `key` stays: equal keys mean equal tensors.
        """
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        size = state_bytes(x)
        if size > self.max_bytes:
            return
        while self.bytes + size > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= state_bytes(oldest)
        self._entries[key] = copy_state(x)
        self.bytes += size

    def clear(self) -> None:
        """Delete all entries."""
        self._entries.clear()
        self.bytes = 0


@dataclass(frozen=True)
class Batch:
    """Images identified by split and range, loaded only when a pass needs them.

    Batches of other ranges are other batches: matrix products of another size round differently.
    """

    split: str  # digest
    first: int  # index of the first image in the split
    count: int  # B
    image: Image  # shape of each: 3, rows, columns
    load: Callable[[], Tensor] = field(compare=False)  # -> (B, 3, rows, columns), as the model's

    def images(self) -> Tensor:
        """Load the images; MeasurementError if their shape is not the one declared."""
        images, shape = self.load(), (self.count, *self.image)
        if tuple(images.shape) != shape:
            raise MeasurementError(
                f"a batch was loaded as {tuple(images.shape)}, where {shape} was declared"
            )
        return images


def logits_with_reuse(model: nn.Module, batch: Batch, cache: PrefixCache) -> Tensor:
    """Return the logits of `model` for a batch under the policy that it follows: (B, K).

    They are the same bits as those of a whole pass. The pass starts at the deepest block whose
    input is cached, and caches the input of each later block that reduces.

    Raises:
        ModelError: The model cannot start at a block within.
        MeasurementError: The batch has another shape than declared.
    """
    policy = policy_of(model)
    if policy is None:
        return _run_whole(model, batch)
    blocks = range(policy.model.blocks)[::-1]
    hit = cache.find_first(_key(model, batch, block) for block in blocks)
    if hit is None:
        return fill_cache(model, batch, reducing_blocks(policy), cache)
    index, features = hit
    start = blocks[index]
    check_resumes(model, batch.image)  # before any capture: the check makes passes of its own
    later = [block for block in reducing_blocks(policy) if block > start]
    with capture_activations(model, later, _cache_writer(model, batch, cache)):
        return logits_from(model, start, features, image=batch.image)


def fill_cache(model: nn.Module, batch: Batch, blocks: Iterable[int], cache: PrefixCache) -> Tensor:
    """Run one whole pass, cache the input of each of `blocks`, and return the logits.

    For a model that follows no policy, these are the blocks at which policies may begin to reduce.
    """
    with capture_activations(model, blocks, _cache_writer(model, batch, cache)):
        return _run_whole(model, batch)


def reducing_blocks(policy: Policy) -> tuple[int, ...]:
    """Return the blocks that reduce: a policy that differs in one of them shares all before it."""
    reducing = {step.block for step in policy.steps}
    if policy.last_block == "prefix_only":
        reducing.add(policy.model.blocks - 1)
    return tuple(sorted(reducing))


def _run_whole(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(batch.images())
    return logits


def _cache_writer(
    model: nn.Module, batch: Batch, cache: PrefixCache
) -> Callable[[int, Tensor], None]:
    return lambda block, x: cache.put(_key(model, batch, block), x)


def _key(model: nn.Module, batch: Batch, block: int) -> Hashable:
    return batch, entering_key(model, block)
