"""Tensors that were computed before, within a bound of memory."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from tokensearch.runtime.riders import bytes_of, copied


@dataclass
class Reuse:
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
        size = bytes_of(x)
        if size > self.most_bytes:
            return
        while self.bytes + size > self.most_bytes:
            _, oldest = self._held.popitem(last=False)
            self.bytes -= bytes_of(oldest)
        self._held[key] = copied(x)
        self.bytes += size

    def clear(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self.bytes = 0
