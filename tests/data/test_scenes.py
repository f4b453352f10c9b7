"""Digit scenes: what a split promises to those who measure on it."""

from collections import Counter

import pytest
import torch

from tokensearch.data.digits import (
    CLASSES,
    PURPOSES,
    digit_ids,
    digit_labels,
    place_digits,
    placing_draws,
)
from tokensearch.data.scenes import TALLY, scenes_digest, split_scenes

SPLITS = ("search", "select", "report")


def test_no_digit_serves_two_purposes():
    ids = [i for purpose in PURPOSES for i in digit_ids(purpose)]
    assert sorted(ids) == list(range(1797))


def test_the_held_out_digits_have_equally_many_of_each_class():
    assert [len(digit_ids(purpose)) for purpose in PURPOSES] == [997, 200, 200, 400]


@pytest.mark.parametrize("purpose", SPLITS)
def test_a_split_holds_equally_many_scenes_of_each_class(purpose):
    _, labels = split_scenes(purpose, 50, size=112)
    assert torch.bincount(labels, minlength=CLASSES).tolist() == [5] * CLASSES


def test_a_scene_is_the_same_whatever_batch_it_is_made_in():
    few, few_labels = split_scenes("report", 7)
    many, many_labels = split_scenes("report", 23)
    assert torch.equal(few, many[:7])
    assert torch.equal(few_labels, many_labels[:7])


def test_scenes_can_be_made_from_any_one_on():
    images, labels = split_scenes("report", 9)
    last, last_labels = split_scenes("report", 9, first=7)
    assert torch.equal(last, images[7:])
    assert torch.equal(last_labels, labels[7:])


def test_making_other_scenes_in_between_changes_nothing():
    before, _ = split_scenes("search", 5)
    split_scenes("select", 5)
    torch.rand(3)
    after, _ = split_scenes("search", 5)
    assert torch.equal(before, after)


def test_splits_show_different_scenes():
    search, select, report = (split_scenes(purpose, 10)[0] for purpose in SPLITS)
    assert not torch.equal(search, select)
    assert not torch.equal(select, report)


def test_images_are_bytes_of_the_size_that_was_asked_for():
    images, labels = split_scenes("select", 3, size=112)
    assert images.shape == (3, 3, 112, 112)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64


def test_training_digits_are_no_split():
    with pytest.raises(ValueError, match="no such split: 'train'"):
        split_scenes("train", 1)


def test_the_digest_names_a_split_and_nothing_else():
    digest = scenes_digest("report", 100, 224)
    assert digest.startswith("sha256:")
    assert digest == scenes_digest("report", 100, 224)
    others = [
        scenes_digest("report", 101, 224),
        scenes_digest("select", 100, 224),
        scenes_digest("report", 100, 112),
    ]
    assert digest not in others


def placed(purpose, count, labels=None):
    draws = placing_draws(TALLY.tallies, TALLY.cells)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count, draws, generator=generator, dtype=torch.float64)
    return place_digits(uniform, purpose, TALLY.tallies, TALLY.cells, labels=labels)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_the_label_is_the_digit_that_occurs_most_often_and_more_often_than_any_other(purpose):
    scenes = placed(purpose, 300)
    tallies = Counter()
    for label, classes in zip(scenes.labels, digit_labels()[scenes.digits], strict=True):
        counts = torch.bincount(classes, minlength=CLASSES)
        assert (counts == counts.max()).nonzero().tolist() == [[int(label)]]
        tallies[tuple(counts[counts > 0].sort(descending=True).values.tolist())] += 1
    assert set(tallies) == set(TALLY.tallies)


@pytest.mark.parametrize("purpose", PURPOSES)
def test_digits_of_a_purpose_are_placed_in_cells_of_their_own(purpose):
    scenes = placed(purpose, 300)
    assert set(scenes.digits.flatten().tolist()) <= set(digit_ids(purpose))
    assert all(len(set(cells)) == 9 for cells in scenes.cells.tolist())
    assert set(scenes.cells.flatten().tolist()) == set(range(16))


def test_a_label_that_is_asked_for_is_the_one_that_occurs_most_often():
    asked = torch.arange(30) % CLASSES
    assert torch.equal(placed("select", 30, asked).labels, asked)
