import pytest

from tokensearch.errors import PolicyError
from tokensearch.policy import PRESETS, ModelSpec, Policy, Prune, preset

DEIT_S = ModelSpec(
    "deit_small_patch16_224", blocks=12, patch_tokens=196, prefix_tokens=1, width=384
)

# Tokens after each block, class token included, as published or printed by the authors' code.
PUBLISHED = {
    "none": [197] * 12,
    "tome-r8": [189, 181, 173, 165, 157, 149, 141, 133, 125, 117, 109, 101],
    "tome-r13": [184, 171, 158, 145, 132, 119, 106, 93, 80, 67, 54, 41],
    "tome-r16": [181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11],
    "topk-0.7": [197] * 3 + [139] * 3 + [98] * 3 + [69] * 3,
    "last-cls": [197] * 11 + [1],
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_leaves_the_published_tokens(name: str) -> None:
    assert [1 + count for count in preset(name, DEIT_S).patch_tokens_per_block] == PUBLISHED[name]


def test_a_random_control_has_the_counts_of_its_preset() -> None:
    control = preset("random-tome-r13", DEIT_S)

    assert control.patch_tokens_per_block == preset("tome-r13", DEIT_S).patch_tokens_per_block
    assert {step.score for step in control.steps if isinstance(step, Prune)} == {"random"}


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(PolicyError) as raised:
        preset("tome-r12", DEIT_S)

    assert (
        str(raised.value)
        == "preset 'tome-r12' is unknown; the nearest are tome-r16, tome-r13, tome-r8"
    )


def test_a_preset_for_another_depth_is_refused() -> None:
    with pytest.raises(PolicyError) as raised:
        preset("tome-r13", ModelSpec("vit_large_patch16_224", 24, 196, 1, 1024))

    assert str(raised.value) == (
        "preset 'tome-r13' was made for 12 blocks and 196 patch tokens; "
        "vit_large_patch16_224 has 24 and 196"
    )


def test_the_unreduced_model_is_a_preset_that_fits_anything() -> None:
    spec = ModelSpec("odd", 3, 7, 0, 5)

    assert preset("none", spec) == Policy(spec)
