"""A store of tensors within a bound of memory."""

from random import Random

import torch
from torch import Tensor

from tokensearch.evaluation.prefix_reuse import PrefixCache
from tokensearch.ops import Tokens
from tokensearch.runtime.token_state import attach_state, read_state

BYTES = 4 * 10  # of one tensor


def tensor(value: int) -> Tensor:
    return torch.full((10,), float(value))


def held(store: PrefixCache, key: object) -> Tensor | None:
    found = store.first([key])
    return None if found is None else found[1]


def test_the_first_of_the_keys_that_is_held_is_found() -> None:
    store = PrefixCache(10 * BYTES)
    for key in (1, 2):
        store.put(key, tensor(key))

    found = store.first(iter([3, 2, 1]))

    assert found is not None
    assert found[0] == 1
    assert torch.equal(found[1], tensor(2))
    assert store.first([3, 4]) is None
    assert (store.hits, store.misses) == (1, 1)


def test_what_was_not_used_for_longest_goes_first() -> None:
    store = PrefixCache(3 * BYTES)
    for key in (1, 2, 3):
        store.put(key, tensor(key))
    store.first([1])
    store.put(2, tensor(2))

    store.put(4, tensor(4))

    assert [key in store for key in (1, 2, 3, 4)] == [True, True, False, True]


def test_the_bound_is_never_exceeded() -> None:
    store, rng = PrefixCache(1000), Random(0)
    for key in range(300):
        store.put(rng.randrange(50), torch.zeros(rng.randrange(1, 100)))
        store.first([rng.randrange(50)])

        sizes = [part.numel() * part.element_size() for part in store._held.values()]
        assert store.bytes == sum(sizes) <= 1000, key
    assert len(store) > 1


def test_what_is_larger_than_the_bound_is_not_kept_and_drives_nothing_out() -> None:
    store = PrefixCache(BYTES)
    store.put(1, tensor(1))

    store.put(2, torch.zeros(11))

    assert 1 in store
    assert 2 not in store


def test_what_rides_on_a_tensor_is_kept_and_counted() -> None:
    x, size = torch.zeros(2, 3, 4), torch.ones(2, 3, 1)
    store = PrefixCache(4 * (24 + 6))

    store.put("key", attach_state(Tokens(x, size)))

    found = held(store, "key")
    assert found is not None
    tokens = read_state(found)
    assert tokens is not None
    assert tokens.size is not None
    assert torch.equal(tokens.size, size)
    assert store.bytes == store.most_bytes


def test_a_view_is_kept_without_the_rest_of_its_memory() -> None:
    store, whole = PrefixCache(10 * BYTES), torch.zeros(1000, 10)
    store.put(1, whole[3])

    found = held(store, 1)

    assert found is not None
    assert found.untyped_storage().nbytes() == BYTES == store.bytes


def test_what_is_done_to_the_original_afterwards_does_not_reach_the_store() -> None:
    store, x = PrefixCache(10 * BYTES), tensor(1)
    store.put(1, x)

    x += 1

    found = held(store, 1)
    assert found is not None
    assert torch.equal(found, tensor(1))


def test_a_cleared_store_holds_nothing() -> None:
    store = PrefixCache(10 * BYTES)
    store.put(1, tensor(1))

    store.clear()

    assert (len(store), store.bytes, held(store, 1)) == (0, 0, None)
