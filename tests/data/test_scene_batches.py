"""Scenes painted many at once: the same as those painted one after the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tokensearch.data.scene_batches import painted, training_scenes
from tokensearch.data.scenes import DRAWS, LUMINANCE, Recipe, digit_ids, digit_labels, one_scene
from tokensearch.demo import demo_model
from tokensearch.demo.curriculum import HARD, MIXED, SOFT


def drawn(count, digits):
    """Digits of a pool and the draws of as many scenes."""
    rng = np.random.default_rng(0)
    return torch.tensor(rng.choice(digits, count)), torch.from_numpy(rng.random((count, DRAWS)))


@pytest.mark.parametrize(
    ("recipe", "size", "photo_scale"),
    [(Recipe(), 224, 1.0), (Recipe().scaled(0.5), 112, 0.5), (HARD, 112, 1.0), (MIXED, 64, 1.0)],
    ids=["split", "half", "hard", "mixed"],
)
def test_scenes_are_those_painted_one_after_the_other_but_for_rounding(recipe, size, photo_scale):
    digits, draws = drawn(60, 1797)
    many = painted(digits, draws, recipe, size=size, photo_scale=photo_scale)
    pairs = zip(digits.tolist(), draws.numpy(), strict=True)
    single = [one_scene(d, u, recipe, size=size, photo_scale=photo_scale) for d, u in pairs]

    off = (many.images.int() - torch.stack(single).int()).abs()

    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-4
    assert torch.equal(many.labels, digit_labels()[digits])


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
    digits, draws = drawn(100, digit_ids("report"))
    scenes = painted(digits, draws, Recipe(), size=224)
    model = demo_model()
    with torch.inference_mode():
        named = [model(batch / 127.5 - 1).argmax(1) for batch in scenes.images.split(50)]
    # 97.85 % on the split; fewer than 92 of 100 come by chance once in a thousand times.
    assert (torch.cat(named) == scenes.labels).float().mean() >= 0.92


@pytest.mark.gpu
def test_a_gpu_paints_what_a_cpu_paints():
    there, here = (
        training_scenes((0,), 32, SOFT, size=224, device=device) for device in ("cuda", "cpu")
    )
    assert there.images.is_cuda
    off = (there.images.cpu().int() - here.images.int()).abs()
    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-3
    assert torch.equal(there.labels.cpu(), here.labels)
