"""Passes that start in the middle, and the keys that say which of them may."""

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

import tokensearch
from tests.runtime.test_apply import distilled, mixed, pictures, vit
from tokensearch.doctor.models import tiny
from tokensearch.errors import ModelError
from tokensearch.policy import Policy, Pool, Prune, PruneOrPool, Score, Step
from tokensearch.runtime import (
    capture_activations,
    check_resumes,
    describe,
    entering_key,
    logits_from,
    resume_forward,
)
from tokensearch.runtime.host import has_class_token, reads_prefix_only
from tokensearch.runtime.token_state import copy_state, read_state, state_bytes

IMAGE = (3, 32, 32)


def rotary() -> nn.Module:
    """An Eva of 16 patch tokens and 5 blocks, whose attention rotates by position."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
    model = timm.create_model("eva02_tiny_patch14_224", **shape, depth=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


SHARING = {
    "class token": lambda: vit(depth=6),
    "no class token, averaged by size": lambda: vit(depth=6, class_token=False, global_pool="avg"),
    "rotary": rotary,
}
HOSTS = {
    **SHARING,
    "distilled": distilled,
    "registers and pre-norm": lambda: vit(reg_tokens=4, no_embed_class=True, pre_norm=True),
    "rotations of each block": lambda: tiny("vit_small_patch16_rope_mixed_224"),
    "half rotations": lambda: tiny("vit_small_patch16_dinov3"),
    "attention and MLP side by side": lambda: tiny("vit_dpwee_patch16_reg1_gap_256"),
    "convolutions before": lambda: tiny("vit_tiny_r_s16_p8_224"),
    "NaFlex": lambda: tiny("naflexvit_base_patch16_gap"),
}


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def images(model: nn.Module, *, seed: int = 0, count: int = 3) -> Tensor:
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    size = size or model.pretrained_cfg["input_size"][1:]
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def drawn(model: nn.Module, rng: Random) -> Policy:
    """A random policy; some of them share their first steps, for there are few to choose from."""
    spec, scored = describe(model), has_class_token(model)
    steps: list[Step] = []
    left = spec.patch_tokens
    for block in range(spec.blocks):
        if rng.random() < 0.4:
            left -= 2
            steps.append(rng.choice(choices(block, left, scored=scored)))
    short = reads_prefix_only(model) and rng.random() < 0.3
    return Policy(
        spec,
        tuple(steps),
        proportional_attention=rng.random() < 0.5,
        last_block="prefix_only" if short else "full",
    )


def choices(block: int, keep: int, *, scored: bool) -> tuple[Step, ...]:
    score: Score = "class_attention" if scored else "mean_attention"
    by_class = (PruneOrPool(block, keep, 0.01), Prune(block, keep, "class_attention_value"))
    return (
        Prune(block, keep, score),
        Prune(block, keep, "random"),
        Prune(block, keep, score, rest="fuse"),
        Prune(block, keep, score, rest="mean"),
        Pool(block, keep),
        Pool(block, keep, "ranked", score),
        *(by_class if scored else ()),
    )


def entering(model: nn.Module, x: Tensor) -> dict[int, Tensor]:
    """What enters every block in a pass of `x`."""
    found: dict[int, Tensor] = {}
    blocks = range(describe(model).blocks)
    with capture_activations(
        model, blocks, lambda block, x: found.__setitem__(block, copy_state(x))
    ):
        model(x)
    return found


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bits, and what rides on them."""
    parts = ((one, *(read_state(one) or ())), (other, *(read_state(other) or ())))
    return len(parts[0]) == len(parts[1]) and all(
        (mine is None and yours is None)
        or (mine is not None and yours is not None and torch.equal(mine, yours))
        for mine, yours in zip(*parts, strict=True)
    )


def insides(model: nn.Module) -> list[dict[str, Any]]:
    """Everything that stands on the instances inside a model."""
    return [dict(module.__dict__) for module in model.modules()]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", SHARING)
def test_equal_keys_mean_equal_bits(kind: str, *, dense: bool) -> None:
    model, rng = SHARING[kind](), Random(0)
    x, seen, shared = images(model), {}, 0
    for _ in range(60):
        policy = drawn(model, rng)
        whole = dense and policy.last_block == "full"
        with tokensearch.applied(model, policy, dense=whole):
            for block, features in entering(model, x).items():
                key = entering_key(model, block)
                shared += key in seen
                assert same(seen.setdefault(key, features), features)

    assert shared > 60


@pytest.mark.parametrize("kind", SHARING)
def test_up_to_its_first_step_every_policy_has_the_keys_of_the_unreduced_model(kind: str) -> None:
    model, rng = SHARING[kind](), Random(1)
    plain = [entering_key(model, block) for block in range(describe(model).blocks)]

    for _ in range(30):
        policy = drawn(model, rng)
        first = policy.steps[0].block if policy.steps else policy.model.blocks - 1
        with tokensearch.applied(model, policy):
            found = [entering_key(model, block) for block in range(first + 1)]
        assert found == plain[: first + 1]


@pytest.mark.parametrize("kind", SHARING)
def test_proportional_attention_without_sizes_is_no_difference(kind: str) -> None:
    model = SHARING[kind]()
    spec = describe(model)
    keys = set()
    for proportional in (False, True):
        policy = Policy(spec, (Prune(1, 9, "random"),), proportional_attention=proportional)
        with tokensearch.applied(model, policy):
            keys.add(entering_key(model, spec.blocks - 1))

    assert len(keys) == 1


def test_sizes_that_a_later_step_asks_for_are_a_difference() -> None:
    model = vit()
    keys = []
    for later in (Prune(2, 8), Pool(2, 8)):
        with tokensearch.applied(model, Policy(describe(model), (Pool(0, 12), later))):
            keys.append(entering_key(model, 1))

    assert keys[0] != keys[1]


def test_other_steps_and_other_blocks_have_other_keys() -> None:
    model = vit()
    keys = set()
    for first in (Prune(0, 12), Prune(0, 11), Prune(0, 12, rest="fuse"), Pool(0, 12)):
        with tokensearch.applied(model, Policy(describe(model), (first,))):
            keys |= {entering_key(model, block) for block in (1, 2)}

    assert len(keys) == 8


@pytest.mark.parametrize("kind", HOSTS)
def test_a_pass_from_any_block_on_gives_the_bits_of_a_whole_one(kind: str) -> None:
    model = HOSTS[kind]()
    x, rng = images(model), Random(2)
    shape = tuple(x.shape[1:])
    check_resumes(model, shape)
    for policy in (Policy(describe(model)), drawn(model, rng), drawn(model, rng)):
        with tokensearch.applied(model, policy):
            whole = model(x)
            for block, features in entering(model, x).items():
                for _ in range(2):
                    assert torch.equal(logits_from(model, block, features, image=shape), whole)


def test_what_is_skipped_is_not_computed() -> None:
    model = vit()
    called: list[int] = []
    for place, block in enumerate(model.blocks):
        block.attn.qkv.register_forward_pre_hook(lambda *_, place=place: called.append(place))
    x = pictures(model)
    with tokensearch.applied(model, mixed(model)):
        features = entering(model, x)[2]
        called.clear()

        logits_from(model, 2, features, image=IMAGE)

    assert called == [2, 3]


def test_passes_work_on_copies_of_what_was_captured() -> None:
    class Writing(Block):
        def forward(self, x: Tensor, **rest: object) -> Tensor:
            x += 1
            return super().forward(x)

    Writing.__name__ = "Block"
    model = vit(block_fn=Writing)
    x = pictures(model)
    whole, found = model(x), entering(model, x)

    for block, features in found.items():
        for _ in range(3):
            assert torch.equal(logits_from(model, block, features, image=IMAGE), whole)


def test_a_copy_shares_no_memory_with_what_it_was_made_of() -> None:
    model = tokensearch.apply(rotary(), Policy(describe(rotary()), (Pool(0, 12), Pool(2, 9))))
    features = entering(model, images(model))[1]

    twin = copy_state(features)

    mine, yours = read_state(features), read_state(twin)
    assert same(features, twin)
    assert mine is not None
    assert yours is not None
    assert mine.size is not None
    assert mine.position is not None
    kept = [part for part in mine if part is not None]
    assert state_bytes(features) == sum(part.numel() * part.element_size() for part in kept)
    for part, other in zip(mine, yours, strict=True):
        if part is not None and other is not None:
            assert part.data_ptr() != other.data_ptr()


def test_a_copy_lies_in_memory_as_the_original_did() -> None:
    # Patch embeddings transpose what they hand on; a kernel for another layout rounds otherwise.
    transposed = torch.randn(2, 24, 16).transpose(1, 2)

    assert copy_state(transposed).stride() == transposed.stride()


@pytest.mark.parametrize("applied", [False, True])
def test_afterwards_the_model_is_what_it_was(*, applied: bool) -> None:
    model = vit()
    own = model.blocks[0].forward
    model.blocks[0].forward = own  # of the user's own
    if applied:
        tokensearch.apply(model, mixed(model))
    before, x = insides(model), pictures(model)
    whole = model(x)

    features = entering(model, x)[2]
    logits_from(model, 2, features, image=IMAGE)

    assert insides(model) == before
    assert torch.equal(model(x), whole)
    tokensearch.remove(model)
    assert model.blocks[0].__dict__["forward"] == own


def test_after_an_error_the_model_is_what_it_was() -> None:
    model = tokensearch.apply(vit(), mixed(vit()))
    before, x = insides(model), pictures(model)
    features = entering(model, x)[1]

    def fails(*_: object) -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError), capture_activations(model, range(4), fails):
        model(x)
    with pytest.raises(KeyError), resume_forward(model, 1, features):
        fails()

    assert insides(model) == before


def test_a_model_in_training_mode_is_refused() -> None:
    model = vit().train()

    with (
        pytest.raises(ModelError, match="in training mode draws dropout anew"),
        resume_forward(model, 1, torch.zeros(1, 17, 24)),
    ):
        pass


@pytest.mark.parametrize("block", [-1, 4])
def test_a_block_that_is_not_there_is_refused(block: int) -> None:
    message = f"before block {block}, but a VisionTransformer has blocks 0 to 3"

    with (
        pytest.raises(ModelError, match=message),
        capture_activations(vit(), [block], lambda *_: None),
    ):
        pass


class Recalling(VisionTransformer):
    """Its head reads what its stem made, past the blocks."""

    def forward_features(self, x: Tensor, **rest: Any) -> Tensor:
        return super().forward_features(x, **rest) + self.patch_embed(x).mean()


def test_a_host_that_reads_more_than_its_blocks_hand_on_is_refused() -> None:
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 3}
    model = Recalling(**shape, num_classes=5).eval()

    with pytest.raises(ModelError, match="cannot start at its last block: its logits are others"):
        check_resumes(model, IMAGE)
