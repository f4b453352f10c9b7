"""Logits from the middle of a pass, in any order, within any bound."""

from collections.abc import Iterator
from random import Random

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.runtime.test_apply import mixed, pictures, vit
from tests.runtime.test_partial_forward import SHARING, Recalling, drawn, images, insides
from tokensearch.errors import MeasurementError, ModelError
from tokensearch.evaluation.prefix_reuse import (
    Batch,
    PrefixCache,
    fill_cache,
    logits_with_reuse,
    reducing_blocks,
)
from tokensearch.policy import Policy, Prune
from tokensearch.runtime import describe, remove

PLENTY = 10**9


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def batch_of(model: nn.Module, number: int, loaded: list[int] | None = None) -> Batch:
    """Batch `number`, of 3 images, the second of 2; its number goes to `loaded` when it is."""
    count = 2 if number == 1 else 3

    def load() -> Tensor:
        if loaded is not None:
            loaded.append(number)
        return images(model, seed=number, count=count)

    shape = tuple(images(model).shape[1:])
    return Batch("sha256:abc", 3 * number, count, shape, load)


@pytest.mark.parametrize("bound", [0, 15_000, 60_000, PLENTY])
@pytest.mark.parametrize("kind", SHARING)
def test_logits_are_those_of_a_whole_pass_bit_for_bit(kind: str, bound: int) -> None:
    model, rng, cache = SHARING[kind](), Random(bound), PrefixCache(bound)
    policies = [drawn(model, rng) for _ in range(8)]
    for _ in range(24):
        policy, batch = rng.choice(policies), batch_of(model, rng.randrange(2))
        dense = policy.last_block == "full" and rng.random() < 0.3
        with tokensearch.applied(model, policy, dense=dense):
            assert torch.equal(logits_with_reuse(model, batch, cache), model(batch.images()))
        assert cache.bytes <= bound

    assert (cache.hits == 0) == (bound == 0)


@pytest.mark.parametrize("kind", SHARING)
def test_a_filled_store_serves_every_policy_without_loading_an_image(kind: str) -> None:
    model, rng, cache = SHARING[kind](), Random(3), PrefixCache(PLENTY)
    loaded: list[int] = []
    batches = [batch_of(model, number, loaded) for number in (0, 1)]
    for batch in batches:
        found = fill_cache(model, batch, range(describe(model).blocks), cache)
        assert torch.equal(found, model(batch.load()))

    loaded.clear()
    for policy in [drawn(model, rng) for _ in range(20)]:
        with tokensearch.applied(model, policy):
            found = [logits_with_reuse(model, batch, cache) for batch in batches]
            assert loaded == []
            expected = [model(batch.load()) for batch in batches]
            loaded.clear()
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))

    assert cache.misses == 0


def calls(model: nn.Module) -> list[int]:
    """A list that each block's attention adds its number to, from now on."""
    called: list[int] = []
    for place, block in enumerate(model.blocks):
        block.attn.qkv.register_forward_pre_hook(lambda *_, place=place: called.append(place))
    return called


def test_policies_that_share_their_first_steps_share_what_comes_of_them() -> None:
    model, cache = vit(depth=6), PrefixCache(PLENTY)
    called, batch, spec = calls(model), batch_of(model, 0), describe(model)

    def run(*steps: Prune, **more: str) -> list[int]:
        with tokensearch.applied(model, Policy(spec, steps, **more)):
            logits_with_reuse(
                model, batch, cache
            )  # the first to resume is held against a whole pass
            logits_with_reuse(model, batch, cache)
            called.clear()
            logits_with_reuse(model, batch, cache)
        return list(called)

    assert run(Prune(1, 12), Prune(3, 8)) == [3, 4, 5]
    assert run(Prune(1, 12), Prune(3, 6), Prune(4, 4)) == [4, 5]
    with tokensearch.applied(model, Policy(spec, (Prune(1, 12), Prune(3, 7)))):
        called.clear()
        logits_with_reuse(model, batch, cache)
        assert called == [3, 4, 5]
    with tokensearch.applied(model, Policy(spec, (Prune(1, 12), Prune(2, 7)))):
        called.clear()
        logits_with_reuse(model, batch, cache)
        assert called == [1, 2, 3, 4, 5]


def test_batches_are_told_apart_by_split_place_and_length() -> None:
    model, cache = vit(), PrefixCache(PLENTY)
    policy = Policy(describe(model), (Prune(1, 9),))
    one = pictures(model)
    named = [("a", 0, one), ("b", 0, one + 1), ("a", 3, one + 2), ("a", 0, one[:2])]
    with tokensearch.applied(model, policy):
        for _ in range(2):
            for split, first, x in named:
                batch = Batch(split, first, len(x), (3, 32, 32), lambda x=x: x)
                assert torch.equal(logits_with_reuse(model, batch, cache), model(x))

    assert (cache.hits, cache.misses) == (4, 4)


def test_a_model_without_a_policy_runs_whole() -> None:
    model, cache = vit(), PrefixCache(PLENTY)
    batch = batch_of(model, 0)

    assert torch.equal(logits_with_reuse(model, batch, cache), model(batch.images()))
    assert len(cache) == 0


def test_boundaries_lie_before_what_reduces() -> None:
    spec = describe(vit())
    steps = mixed(vit()).steps

    assert reducing_blocks(Policy(spec)) == ()
    assert reducing_blocks(Policy(spec, steps)) == (0, 1, 2)
    assert reducing_blocks(Policy(spec, steps, last_block="prefix_only")) == (0, 1, 2, 3)


def test_the_model_is_given_back_exactly() -> None:
    model, cache = vit(), PrefixCache(PLENTY)
    before, batch = insides(model), batch_of(model, 0)
    tokensearch.apply(model, mixed(model))
    applied = insides(model)

    for _ in range(3):
        logits_with_reuse(model, batch, cache)

    assert insides(model) == applied
    assert insides(remove(model)) == before


def test_an_error_in_the_middle_of_a_pass_leaves_model_and_store_sound() -> None:
    model, cache = vit(), PrefixCache(PLENTY)
    tokensearch.apply(model, mixed(model))
    batch, before = batch_of(model, 0), insides(model)
    whole = model(batch.images())

    def fails(*_: object) -> None:
        raise KeyError("on purpose")

    for _ in range(2):
        hook = model.blocks[2].mlp.register_forward_pre_hook(fails)
        with pytest.raises(KeyError):
            logits_with_reuse(model, batch, cache)
        hook.remove()
        assert insides(model) == before
        assert torch.equal(logits_with_reuse(model, batch, cache), whole)


def test_an_image_that_cannot_be_loaded_leaves_the_model_as_it_was() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    before = insides(model)
    batch = Batch("a", 0, 3, (3, 32, 32), lambda: pictures(model, count=2))

    with pytest.raises(MeasurementError, match=r"loaded as \(2, 3, 32, 32\), where \(3, 3, 32"):
        logits_with_reuse(model, batch, PrefixCache(PLENTY))

    assert insides(model) == before


def test_a_host_that_cannot_start_in_the_middle_is_refused() -> None:
    model = Recalling(img_size=32, patch_size=8, embed_dim=24, num_heads=3, depth=4).eval()
    tokensearch.apply(model, mixed(model))
    batch, cache = batch_of(model, 0), PrefixCache(PLENTY)
    assert torch.equal(logits_with_reuse(model, batch, cache), model(batch.images()))

    with pytest.raises(ModelError, match="cannot start at its last block"):
        logits_with_reuse(model, batch, cache)
