"""Scenes painted many at once: the same as those painted one after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tokensearch.data.digits import CLASSES, digit_ids, digit_labels, place_digits
from tokensearch.data.scene_batches import held_out_scenes, painted, training_scenes
from tokensearch.data.scenes import LUMINANCE, TALLY, Recipe, one_scene, split_scenes
from tokensearch.demo import demo_model
from tokensearch.demo.curriculum import HARD, MIXED, NINE, SOFT


def drawn(count, recipe, purpose="train"):
    """What scenes of a recipe show, and the draws that paint them."""
    rng = np.random.default_rng(0)
    draws = torch.from_numpy(rng.random((count, recipe.draws)))
    placing = draws[:, recipe.painting_draws :]
    return place_digits(placing, purpose, recipe.tallies, recipe.cells), draws


@pytest.mark.parametrize(
    ("recipe", "size", "photo_scale"),
    [
        (Recipe(), 224, 1.0),
        (Recipe().scaled(0.5), 112, 0.5),
        (HARD, 112, 1.0),
        (MIXED, 64, 1.0),
        (replace(NINE, cells=3), 176, 1.0),
        (TALLY, 224, 1.0),
        (TALLY.scaled(0.5), 112, 0.5),
        (TALLY.scaled(1 / 7), 32, 1 / 7),
    ],
    ids=["single", "half single", "hard", "mixed", "window", "split", "half split", "tiny"],
)
def test_scenes_are_those_painted_one_after_the_other_but_for_rounding(recipe, size, photo_scale):
    placed, draws = drawn(30, recipe)
    many = painted(placed, draws, recipe, size=size, photo_scale=photo_scale)
    rows = zip(placed.digits.tolist(), placed.cells.tolist(), draws.numpy(), strict=True)
    single = [one_scene(*row, recipe, size=size, photo_scale=photo_scale) for row in rows]

    off = (many.images.int() - torch.stack(single).int()).abs()

    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-4
    assert torch.equal(many.labels, placed.labels)


def test_equal_seeds_give_equal_training_scenes():
    one, same, other = (
        training_scenes(seed, 4, Recipe(), size=224) for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert torch.equal(one.images, same.images)
    assert torch.equal(one.ink, same.ink)
    assert not torch.equal(one.images, other.images)


def test_training_scenes_show_training_digits_of_every_class_about_equally_often():
    labels = training_scenes((0,), 2000, replace(SOFT, digit_px=(20.0, 20.0)), size=32).labels
    pool = digit_labels()[torch.tensor(digit_ids("train"))]
    expected = 2000 * torch.bincount(pool) / len(pool)
    assert ((torch.bincount(labels) - expected).abs() < 4 * expected.sqrt()).all()


def test_digits_are_found_at_every_place_and_size_of_the_recipe():
    scenes = training_scenes((1,), 200, Recipe(), size=224)
    inked = scenes.ink > 0
    rows, columns = inked.any(2).float(), inked.any(1).float()
    middles = torch.stack([(s * torch.arange(14.0)).sum(1) / s.sum(1) for s in (rows, columns)])
    # Middles are uniform over 40..88 px to 224 less that; patches blur them by a patch or so.
    assert ((middles.mean(1) - 6.5).abs() < 4 * 3 / 200**0.5).all()
    assert (middles.amin(1) < 3).all()
    assert (middles.amax(1) > 10).all()
    # The ink's area goes with the square of the side, so it spreads by about (88 / 40) ** 2.
    area = scenes.ink.sum((1, 2))
    assert area.quantile(0.95) > 3 * area.quantile(0.05)


def test_ink_says_which_patches_the_digit_covers():
    scenes = training_scenes((0,), 16, Recipe(digit_px=(100.0, 100.0)), size=224)
    assert scenes.ink.shape == (16, 14, 14)
    covered = (scenes.ink > 0).flatten(1).sum(1)
    assert covered.min() >= 4
    assert covered.max() <= 81  # a turned digit of 100 px touches at most 9 x 9 patches


def test_where_there_is_no_ink_a_plain_scene_has_one_colour_and_where_there_is_another():
    scenes = training_scenes((0,), 20, Recipe(plain_share=1.0), size=224)
    patches = scenes.images.unfold(2, 16, 16).unfold(3, 16, 16).flatten(4).int()
    spread = (patches.amax(-1) - patches.amin(-1)).amax(1)
    assert (spread[scenes.ink == 0] == 0).all()
    assert (spread[(scenes.ink > 0.1) & (scenes.ink < 0.9)] > 20).all()


def test_ink_stands_out_enough_for_a_person_to_read_it():
    scenes = training_scenes((0,), 40, Recipe(plain_share=1.0), size=224)
    weights = torch.tensor(LUMINANCE).view(3, 1, 1)
    luminance = (scenes.images / 255 * weights).sum(1).flatten(1)
    assert (luminance.amax(1) - luminance.amin(1)).min() > 0.39  # 0.4, less rounding to bytes


def test_the_bundled_model_reads_them_as_it_reads_its_splits():
    placed, draws = drawn(100, TALLY, "report")
    scenes = painted(placed, draws, TALLY, size=224)
    model = demo_model()
    with torch.inference_mode():
        named = [model(batch / 127.5 - 1).argmax(1) for batch in scenes.images.split(50)]
    # 87 % on the split; fewer than 76 of 100 come by chance once in a thousand times.
    assert (torch.cat(named) == scenes.labels).float().mean() >= 0.76


def test_every_digit_of_a_scene_is_painted_and_counted():
    scenes = training_scenes((2,), 200, NINE, size=224)
    assert (scenes.counts.sum(1) == 9).all()
    assert torch.equal(scenes.counts.argmax(1), scenes.labels)
    marked = torch.zeros(200, CLASSES, dtype=torch.bool)
    for scene in range(200):
        marked[scene, scenes.classes[scene][scenes.ink[scene] > 0.1]] = True
    assert torch.equal(marked, scenes.counts > 0)


def test_scenes_that_a_training_is_tried_on_are_those_of_the_split_but_for_rounding():
    scenes = held_out_scenes("select", 20, TALLY, torch.device("cpu"), first=5)
    images, labels = split_scenes("select", 20, first=5)
    assert (scenes.images.int() - images.int()).abs().max() <= 1
    assert torch.equal(scenes.labels, labels)


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", [SOFT, NINE])
def test_a_gpu_paints_what_a_cpu_paints(recipe):
    there, here = (
        training_scenes((0,), 32, recipe, size=224, device=device) for device in ("cuda", "cpu")
    )
    assert there.images.is_cuda
    off = (there.images.cpu().int() - here.images.int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-3
    assert torch.equal(there.labels.cpu(), here.labels)
