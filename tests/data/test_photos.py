from itertools import combinations
from typing import Any

import numpy as np
import torch

from tokensearch.data.photos import PHOTOS, draw_crop, photo_splits
from tokensearch.data.splits import PURPOSES, Purpose, Sizes, Splits

CONFIG: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
}
ROWS, COLUMNS = 427, 640  # of either photograph


def splits(*, sizes: Sizes | None = None, seed: int = 0) -> Splits:
    return photo_splits(data_config=CONFIG, sizes=sizes or Sizes(4, 4, 4), seed=seed)


def seen(photo: str, purpose: Purpose) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which pixels of a photograph many crops of one purpose look at."""
    pixels = np.zeros((ROWS, COLUMNS), dtype=np.bool_)
    for index in range(400):
        crop = draw_crop(purpose, index, seed=3)
        if crop.photo == photo:
            rows = slice(crop.top, crop.top + crop.side)
            pixels[rows, crop.left : crop.left + crop.side] = True
    return pixels


def test_no_pixel_serves_two_purposes() -> None:
    for photo in PHOTOS:
        for one, other in combinations(PURPOSES, 2):
            assert not (seen(photo, one) & seen(photo, other)).any()


def test_every_purpose_sees_nearly_a_third_of_every_photograph() -> None:
    for photo in PHOTOS:
        for purpose in PURPOSES:
            assert 0.3 < seen(photo, purpose).mean() <= 1 / 3


def test_crops_lie_within_the_photograph() -> None:
    for purpose in PURPOSES:
        for index in range(400):
            crop = draw_crop(purpose, index, seed=7)
            assert crop.left >= 0
            assert crop.top >= 0
            assert crop.left + crop.side <= COLUMNS
            assert crop.top + crop.side <= ROWS
            assert crop.side >= 95


def test_crops_have_the_model_s_size_and_no_labels() -> None:
    made = splits()

    images, labels = next(made.search.batches(4))

    assert tuple(images.shape) == (4, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.tolist() == [-1] * 4
    assert not made.labelled


def test_equal_seeds_give_equal_crops() -> None:
    first, again, other = (next(splits(seed=s).report.batches(4))[0] for s in (1, 1, 2))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_larger_split_begins_with_the_smaller_one() -> None:
    small = next(splits(sizes=Sizes(2, 2, 2)).select.batches(2))[0]
    large = next(splits(sizes=Sizes(9, 9, 9)).select.batches(2))[0]

    assert torch.equal(small, large)


def test_digests_tell_splits_and_seeds_apart() -> None:
    digests = {splits(seed=s).of(purpose).digest for s in (0, 1) for purpose in PURPOSES}

    assert len(digests) == 6
    assert splits().search.digest == splits().search.digest


def test_a_crop_that_is_not_square_keeps_its_shape() -> None:
    """A photograph that is resized without regard to its shape would show other edges."""
    square, wide = (
        photo_splits(data_config={**CONFIG, "input_size": (3, *size)}, sizes=Sizes(2, 2, 2), seed=0)
        for size in ((32, 32), (16, 32))
    )

    (whole, _), (middle, _) = square.search.part(0, 2), wide.search.part(0, 2)

    assert middle.shape == (2, 3, 16, 32)
    assert (whole[:, :, 8:24] - middle).abs().mean() < 0.05
