import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tokensearch.errors import PolicyError
from tokensearch.policy import PRESETS, ModelSpec, Pool, Prune, preset

DEIT_S = ModelSpec("deit_small_patch16_224", 12, 196, 1, 384)


def test_a_rescaled_preset_keeps_its_ratios_and_says_so() -> None:
    policy = preset("topk-0.5", ModelSpec("vit", 24, 576, 1, 64), rescale=True)

    assert policy.steps == (Prune(6, 288), Prune(12, 144), Prune(18, 73))
    assert policy.provenance == {
        "preset": "topk-0.5",
        "rescaled": "from 12 blocks and 196 patch tokens",
    }


@pytest.mark.parametrize("name", ["tome-r13", "last-cls", "none"])
def test_a_preset_that_fits_is_not_rescaled(name: str) -> None:
    assert preset(name, DEIT_S, rescale=True) == preset(name, DEIT_S)


def test_of_steps_that_land_in_one_block_the_last_prune_and_the_last_pool_stay() -> None:
    shallow = ModelSpec("shallow", 4, 196, 1, 64)

    assert preset("topk-0.7", ModelSpec("one", 1, 196, 1, 64), rescale=True).steps == (
        Prune(0, 68),
    )
    assert preset("diffrate-s-2.9", shallow, rescale=True).steps_of(1) == (
        Prune(1, 149),
        Pool(1, 140, "ranked"),
    )


def test_a_pool_that_can_only_halve_leaves_half() -> None:
    policy = preset("tome-r16", ModelSpec("shallow", 2, 196, 1, 64), rescale=True)

    assert policy.patch_tokens_per_block == (148, 74)


def test_a_grid_that_cannot_be_halved_is_refused() -> None:
    odd = ModelSpec("odd", 12, 15 * 15, 1, 64)

    with pytest.raises(PolicyError, match="takes a square grid of even side"):
        preset("avgpool-grid", odd, rescale=True)


MODELS = st.builds(
    ModelSpec,
    name=st.just("any"),
    blocks=st.integers(1, 40),
    patch_tokens=st.integers(1, 2000),
    prefix_tokens=st.integers(1, 5),
    width=st.just(64),
)


@given(st.sampled_from(sorted(PRESETS)), MODELS)
def test_any_preset_but_the_grid_can_be_carried_over_to_any_model(
    name: str, model: ModelSpec
) -> None:
    assume(name != "avgpool-grid")

    policy = preset(name, model, rescale=True)

    assert ("rescaled" in policy.provenance) != PRESETS[name].made_for(model)
    assert policy.proportional_attention == PRESETS[name].proportional_attention


@given(st.sampled_from(["topk-0.7", "evit-0.5", "ppt-aligned", "diffrate-b-8.7"]), MODELS)
def test_a_deeper_model_keeps_the_shares_at_the_depths_of_the_preset(
    name: str, model: ModelSpec
) -> None:
    assume(model.blocks >= 12 and model.patch_tokens >= 100)
    published = preset(name, DEIT_S)

    carried = preset(name, model, rescale=True)

    for step in published.steps:
        block = int(step.block * model.blocks / 12 + 0.5)
        left, share = carried.patch_tokens_per_block[block], published.patch_tokens_per_block
        assert abs(left - share[step.block] / 196 * model.patch_tokens) <= 1
