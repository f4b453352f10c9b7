"""A cache of tensors within a bound of memory."""

from random import Random

import torch
from torch import Tensor

from tokensearch.evaluation.prefix_reuse import PrefixCache
from tokensearch.ops import Tokens
from tokensearch.runtime.token_state import attach_state, read_state

BYTES = 4 * 10  # of one tensor


def tensor(value: int) -> Tensor:
    return torch.full((10,), float(value))


def cached(cache: PrefixCache, key: object) -> Tensor | None:
    found = cache.find_first([key])
    return None if found is None else found[1]


def test_the_first_of_the_keys_that_is_held_is_found() -> None:
    cache = PrefixCache(10 * BYTES)
    for key in (1, 2):
        cache.put(key, tensor(key))

    found = cache.find_first(iter([3, 2, 1]))

    assert found is not None
    assert found[0] == 1
    assert torch.equal(found[1], tensor(2))
    assert cache.find_first([3, 4]) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = PrefixCache(3 * BYTES)
    for key in (1, 2, 3):
        cache.put(key, tensor(key))
    cache.find_first([1])
    cache.put(2, tensor(2))

    cache.put(4, tensor(4))

    assert [key in cache for key in (1, 2, 3, 4)] == [True, True, False, True]


def test_the_bound_is_never_exceeded() -> None:
    cache, rng = PrefixCache(1000), Random(0)
    for key in range(300):
        cache.put(rng.randrange(50), torch.zeros(rng.randrange(1, 100)))
        cache.find_first([rng.randrange(50)])

        sizes = [part.numel() * part.element_size() for part in cache._entries.values()]
        assert cache.bytes == sum(sizes) <= 1000, key
    assert len(cache) > 1


def test_what_is_larger_than_the_bound_is_not_kept_and_drives_nothing_out() -> None:
    cache = PrefixCache(BYTES)
    cache.put(1, tensor(1))

    cache.put(2, torch.zeros(11))

    assert 1 in cache
    assert 2 not in cache


def test_what_rides_on_a_tensor_is_kept_and_counted() -> None:
    x, size = torch.zeros(2, 3, 4), torch.ones(2, 3, 1)
    cache = PrefixCache(4 * (24 + 6))

    cache.put("key", attach_state(Tokens(x, size)))

    found = cached(cache, "key")
    assert found is not None
    tokens = read_state(found)
    assert tokens is not None
    assert tokens.size is not None
    assert torch.equal(tokens.size, size)
    assert cache.bytes == cache.max_bytes


def test_a_view_is_kept_without_the_rest_of_its_memory() -> None:
    cache, whole = PrefixCache(10 * BYTES), torch.zeros(1000, 10)
    cache.put(1, whole[3])

    found = cached(cache, 1)

    assert found is not None
    assert found.untyped_storage().nbytes() == BYTES == cache.bytes


def test_what_is_done_to_the_original_afterwards_does_not_reach_the_store() -> None:
    cache, x = PrefixCache(10 * BYTES), tensor(1)
    cache.put(1, x)

    x += 1

    found = cached(cache, 1)
    assert found is not None
    assert torch.equal(found, tensor(1))


def test_a_cleared_store_holds_nothing() -> None:
    cache = PrefixCache(10 * BYTES)
    cache.put(1, tensor(1))

    cache.clear()

    assert (len(cache), cache.bytes, cached(cache, 1)) == (0, 0, None)
