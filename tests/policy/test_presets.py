from pathlib import Path

import pytest

import tokensearch
from tokensearch.errors import PolicyError
from tokensearch.policy import (
    ModelSpec,
    Policy,
    Pool,
    Prune,
    PruneOrPool,
    load,
    preset,
    save,
)

DEIT_S = ModelSpec(
    "deit_small_patch16_224", blocks=12, patch_tokens=196, prefix_tokens=1, width=384
)
VIT_L = ModelSpec("vit_large_patch16_224", blocks=24, patch_tokens=196, prefix_tokens=1, width=1024)


@pytest.mark.parametrize(
    ("name", "keeps"),
    [
        ("tome-r1", [196 - n for n in range(1, 13)]),
        ("tome-r150", [98, 49, 25, 13, 7, 4, 2, 1]),
        ("tome-dec11", [174, 154, 136, 120, 106, 94, 84, 76, 70, 66, 64]),
        ("ppt-r64-pool", [132, 68, 34]),
        ("evit-0.75", [148, 112, 85]),
        ("topk-0.25", [49, 13, 4]),
        ("pomt-100", [96]),
        ("evit-0.999", []),  # everything is kept, so nothing is fused
    ],
)
def test_a_name_takes_any_number(name: str, keeps: list[int]) -> None:
    assert [step.keep for step in preset(name, DEIT_S).steps] == keeps


def test_what_differs_between_variants_is_the_operator() -> None:
    rule, prune, pool = (preset(f"ppt-r50{of}", DEIT_S).steps[0] for of in ("", "-prune", "-pool"))

    assert rule == PruneOrPool(3, 146, threshold=7e-5)
    assert prune == Prune(3, 146, "class_attention_value")
    assert pool == Pool(3, 146)
    assert preset("evit-0.7", DEIT_S).steps[0] == Prune(3, 139, rest="fuse")
    assert preset("evit-0.7-unfused", DEIT_S).steps == preset("topk-0.7", DEIT_S).steps


def test_diffrate_prunes_then_pools_and_lets_no_count_grow_again() -> None:
    policy = preset("diffrate-t-1.0", DEIT_S)

    assert policy.steps_of(5) == (Prune(5, 183), Pool(5, 153, "ranked"))
    assert policy.steps_of(6) == (Pool(6, 147, "ranked"),)
    assert policy.steps_of(7) == ()
    assert policy.proportional_attention


def test_prefix_tokens_are_no_part_of_a_preset() -> None:
    distilled = ModelSpec("deit_small_distilled_patch16_224", 12, 196, 2, 384)

    for name in ("tome-r13", "evit-0.7", "diffrate-s-2.9"):
        assert preset(name, distilled).steps == preset(name, DEIT_S).steps


def test_a_random_control_has_the_counts_of_its_preset() -> None:
    control = preset("random-tome-r13", DEIT_S)

    assert control.patch_tokens_per_block == preset("tome-r13", DEIT_S).patch_tokens_per_block
    assert {step.score for step in control.steps if isinstance(step, Prune)} == {"random"}
    assert control.provenance == {"preset": "random-tome-r13"}


def test_a_random_control_can_be_rescaled() -> None:
    control = preset("random-tome-r13", VIT_L, rescale=True)

    assert control.provenance == {
        "preset": "random-tome-r13",
        "rescaled": "from 12 blocks and 196 patch tokens",
    }


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("tome-13", "tome-r13, tome-dec13, tome-r16"),
        ("tome-r0", "tome-r8, tome-r16, tome-r13"),
        ("evit-1.0", "evit-0.9, evit-0.8, evit-0.7"),
        ("ppt-r50-merge", "ppt-r50-prune, ppt-r50, ppt-r50-pool"),
        ("diffrate-s-3", "diffrate-s-3.1, diffrate-s-2.3, diffrate-s-2.9"),
    ],
)
def test_an_unknown_preset_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(PolicyError) as raised:
        preset(name, DEIT_S)

    assert str(raised.value) == f"preset {name!r} is unknown; the nearest are {near}"


def test_a_preset_for_another_depth_is_refused() -> None:
    with pytest.raises(PolicyError) as raised:
        preset("tome-r13", VIT_L)

    assert str(raised.value) == (
        "preset 'tome-r13' was made for 12 blocks and 196 patch tokens; "
        "vit_large_patch16_224 has 24 and 196; preset(name, model, rescale=True), "
        "or --rescale, carries it over by ratio"
    )


def test_a_preset_for_another_token_count_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"deit_384 has 12 and 576; .* carries it over"):
        preset("evit-0.7", ModelSpec("deit_384", 12, 576, 1, 768))


def test_more_tokens_than_there_are_cannot_be_pruned() -> None:
    with pytest.raises(PolicyError, match="keeps -4 of the 196 patch tokens left"):
        preset("pomt-200", DEIT_S)


def test_the_unreduced_model_is_a_preset_that_fits_anything() -> None:
    spec = ModelSpec("odd", 3, 7, 0, 5)

    assert preset("none", spec) == Policy(spec, provenance={"preset": "none"})


def test_options_stand_in_for_what_was_published() -> None:
    policy = preset(
        "ppt-r50",
        DEIT_S,
        threshold=6e-5,
        proportional_attention=False,
        last_block="prefix_only",
    )

    assert policy.steps[0] == PruneOrPool(3, 146, 6e-5)
    assert not policy.proportional_attention
    assert policy.last_block == "prefix_only"
    assert policy.provenance["options"] == {
        "threshold": 6e-5,
        "proportional_attention": False,
        "last_block": "prefix_only",
    }


def test_a_score_is_that_of_every_step_that_scores() -> None:
    assert preset("diffrate-s-2.9", DEIT_S, score="mean_attention").scores == {"mean_attention"}


def test_the_package_takes_the_same_options() -> None:
    policy = tokensearch.preset("topk-0.7", DEIT_S, score="mean_attention")

    assert policy == preset("topk-0.7", DEIT_S, score="mean_attention")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "tome-r13",
            {"threshold": 1.0},
            "preset 'tome-r13' has no option 'threshold'; "
            "it has last_block, proportional_attention, rescale",
        ),
        (
            "topk-0.7",
            {"proportional_attention": True},
            "preset 'topk-0.7' has no option 'proportional_attention'; "
            "it has last_block, rescale, score",
        ),
        (
            "none",
            {"speed": 2},
            "preset 'none' has no option 'speed'; it has last_block, rescale",
        ),
        (
            "random-topk-0.7",
            {"score": "random"},
            "preset 'random-topk-0.7' has no option 'score'; it has last_block, rescale",
        ),
        (
            "tome-r13",
            {"proportional_attention": "yes"},
            "proportional_attention of preset 'tome-r13' is 'yes'; it must be True or False",
        ),
        (
            "tome-r13",
            {"rescale": 1},
            "rescale of preset 'tome-r13' is 1; it must be True or False",
        ),
        (
            "tome-r13",
            {"last_block": "half"},
            "last_block is 'half'; it may be full or prefix_only",
        ),
        (
            "topk-0.7",
            {"score": "beauty"},
            "prune at block 3 scores by 'beauty'; known are class_attention, "
            "class_attention_value, head_weighted_class_attention, mean_attention, shift, "
            "random, learned",
        ),
        (
            "ppt-r50",
            {"threshold": "low"},
            "prune_or_pool at block 3 has the threshold 'low'; it must be a number",
        ),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(PolicyError) as raised:
        preset(name, DEIT_S, **options)

    assert str(raised.value) == message


def test_what_a_policy_says_of_itself_is_in_its_file(tmp_path: Path) -> None:
    policy = preset("ppt-r50", VIT_L, rescale=True, threshold=6e-5)

    save(policy, tmp_path / "policy.json")

    assert load(tmp_path / "policy.json") == policy


def test_the_rule_takes_no_score_whose_variance_means_something_else() -> None:
    with pytest.raises(PolicyError, match="known are class_attention_value"):
        preset("ppt-r50", DEIT_S, score="mean_attention")


def test_random_scores_are_no_weights_to_fuse_by() -> None:
    with pytest.raises(PolicyError, match="fuses the discarded by random scores"):
        preset("evit-0.7", DEIT_S, score="random")


def test_evit_fuses_one_discarded_token_into_its_own_place() -> None:
    policy = preset("evit-0.99", DEIT_S)

    assert [step.keep for step in policy.steps] == [196, 196, 196]
    assert preset("evit-0.995", DEIT_S).steps == ()  # ceil(0.995 * 196) discards nothing
