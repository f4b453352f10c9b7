from pathlib import Path

import pytest

from tokensearch.policy import PRESETS, ModelSpec, is_published, mac_share
from tokensearch.search import load_space
from tokensearch.search.controls import CONTROLS, draw_controls, fixed_controls, nearest_presets

SMALL = Path(__file__).parents[2] / "search_spaces" / "exhaustive_small.toml"


def names(width: int, *, blocks: int = 12) -> list[str]:
    model = ModelSpec("any", blocks, 196, 1, width)
    return [name for name, _ in fixed_controls(model, scored=True, prefix_read=True)]


def test_a_search_tries_a_documented_few_of_the_presets() -> None:
    assert set(CONTROLS) < set(PRESETS)
    assert len(names(384)) <= 12 < len(PRESETS)


@pytest.mark.parametrize(
    ("width", "lists"),
    [
        (128, ["diffrate-s-2.3"]),
        (192, ["diffrate-t-0.6"]),
        (384, ["diffrate-s-2.3"]),
        (768, ["diffrate-b-8.7"]),
    ],
)
def test_the_lists_of_diffrate_are_those_of_the_models_size(width: int, lists: list[str]) -> None:
    assert [name for name in names(width) if name.startswith("diffrate")] == lists


def test_a_large_model_gets_what_was_published_for_it() -> None:
    assert names(1024, blocks=24) == [
        "none",
        "last-cls",
        "tome-l-r7",
        "diffrate-mae-l-31.0",
    ]


def test_a_model_that_no_preset_was_made_for_gets_the_controls() -> None:
    assert names(64, blocks=7) == ["none", "last-cls"]


def test_presets_are_carried_over_to_another_count_of_patches_and_named_so() -> None:
    model = ModelSpec("dinov2", 12, 256, 1, 384)

    found = dict(
        nearest_presets(model, scored=True, prefix_read=True, ratio=mac_share, target_ratio=0.6)
    )

    assert found
    assert all(name.endswith("-rescaled") and is_published(name) for name in found)
    assert all(policy.model == model for policy in found.values())
    fixed = [name for name, _ in fixed_controls(model, scored=True, prefix_read=True)]
    assert fixed[:3] == ["none", "last-cls", "tome-r13-rescaled"]
    assert "random-topk-0.7-rescaled" in fixed


def test_each_method_is_tried_at_the_strength_that_the_target_takes() -> None:
    model = ModelSpec("deit", 12, 196, 1, 384)

    found = dict(
        nearest_presets(model, scored=True, prefix_read=True, ratio=mac_share, target_ratio=0.6)
    )

    sources = [PRESETS[name].source for name in found]
    assert 0 < len(found) <= 3
    assert len(set(sources)) == len(sources)
    assert all(0.5 < mac_share(policy) <= 0.6 for policy in found.values())


def test_a_target_that_no_publication_meets_brings_none() -> None:
    model = ModelSpec("deit", 12, 196, 1, 384)

    assert not dict(
        nearest_presets(model, scored=True, prefix_read=True, ratio=mac_share, target_ratio=0.05)
    )


def test_no_control_is_drawn_twice() -> None:
    """Of 400 draws from a small space 14 meet the target, six of them different."""
    model, space = ModelSpec("any", 12, 196, 1, 192), load_space(SMALL)

    drawn = list(draw_controls(space, model, ratio=mac_share, target_ratio=0.5, seed=0))

    assert len(drawn) == len({policy.schedule_hash for policy in drawn}) == 6
