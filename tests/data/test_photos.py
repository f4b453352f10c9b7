from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tokensearch.data.photos import (
    MANY,
    Crop,
    bundled_photos,
    draw_crop,
    photo_splits,
    picture_splits,
)
from tokensearch.data.splits import PURPOSES, Purpose, Sizes, Splits
from tokensearch.errors import DataError

CONFIG: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
}
PHOTOS = bundled_photos()


def splits(*, sizes: Sizes | None = None, seed: int = 0) -> Splits:
    return photo_splits(data_config=CONFIG, sizes=sizes or Sizes(4, 4, 4), seed=seed)


def size_of(photo: Path) -> tuple[int, int]:
    """Columns and rows."""
    with Image.open(photo) as image:
        return image.size


def crops(purpose: Purpose, *, seed: int = 3) -> list[Crop]:
    """So many that every photograph has its turn a hundred times."""
    return [draw_crop(PHOTOS, purpose, index, seed=seed) for index in range(100 * len(PHOTOS))]


def seen(photo: Path, purpose: Purpose) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which pixels of a photograph many crops of one purpose look at."""
    columns, rows = size_of(photo)
    pixels = np.zeros((rows, columns), dtype=np.bool_)
    for crop in crops(purpose):
        if crop.photo == photo:
            across, down = (slice(at, at + crop.side) for at in (crop.left, crop.top))
            pixels[down, across] = True
    return pixels


def test_no_pixel_serves_two_purposes() -> None:
    for photo in PHOTOS:
        looks = [seen(photo, purpose) for purpose in PURPOSES]
        assert not any((one & other).any() for one, other in combinations(looks, 2)), photo.name


def test_every_purpose_sees_nearly_a_third_of_every_photograph() -> None:
    for photo in PHOTOS:
        for purpose in PURPOSES:
            assert 0.29 < seen(photo, purpose).mean() <= 1 / 3, photo.name


def test_crops_lie_within_the_photograph() -> None:
    for purpose in PURPOSES:
        for crop in crops(purpose, seed=7):
            columns, rows = size_of(crop.photo)
            assert 0 <= crop.left <= columns - crop.side
            assert 0 <= crop.top <= rows - crop.side
            assert crop.side >= 95


def test_packages_bring_nine_photographs_and_the_name_says_how_many_there_are() -> None:
    assert len(PHOTOS) >= 9
    assert splits().name == f"crops of {len(PHOTOS)} photographs"
    assert {photo.name for photo in PHOTOS} >= {"china.jpg", "chelsea.jpg", "grace_hopper.jpg"}


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


def own_pictures(folder: Path, count: int, size: tuple[int, int] = (300, 120)) -> Path:
    """A flat folder of pictures that differ from left to right and from one another."""
    folder.mkdir()
    ramp = np.linspace(0, 255, size[0]).astype(np.uint8)
    for number in range(count):
        pixels = np.stack([np.tile(ramp, (size[1], 1))] * 3, axis=-1) // (number + 1)
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return folder


def own_splits(folder: Path) -> Splits:
    return picture_splits(folder, data_config=CONFIG, sizes=Sizes(30, 30, 30), seed=0)


def test_few_pictures_of_one_s_own_are_cut_into_crops(tmp_path: Path) -> None:
    made = own_splits(own_pictures(tmp_path / "own", 4))

    assert made.name == "crops of 4 pictures in own"
    assert not made.labelled
    assert [len(made.of(purpose)) for purpose in PURPOSES] == [30, 30, 30]
    assert len(torch.unique(made.search.part(0, 30)[0], dim=0)) > 20


def test_many_pictures_of_one_s_own_are_an_image_each(tmp_path: Path) -> None:
    made = own_splits(own_pictures(tmp_path / "own", MANY, size=(64, 40)))

    assert made.name == f"{MANY} pictures in own"
    assert sum(len(made.of(purpose)) for purpose in PURPOSES) == MANY
    assert not made.labelled


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = own_pictures(tmp_path / "own", 2)
    (folder / "broken.jpg").write_bytes(b"not a picture")

    with pytest.raises(DataError, match=r"broken\.jpg cannot be read: it is none of JPEG"):
        own_splits(folder)


def test_a_picture_that_is_too_small_to_cut_is_named(tmp_path: Path) -> None:
    folder = own_pictures(tmp_path / "own", 2, size=(200, 120))

    with pytest.raises(DataError, match="has 200 x 120 pixels; fewer than 60 pictures are cut"):
        own_splits(folder)


def test_a_folder_without_pictures_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()

    with pytest.raises(DataError, match=r"holds no pictures .*; give class folders to --data DIR"):
        own_splits(tmp_path)
    with pytest.raises(DataError, match="is not a folder of pictures"):
        own_splits(tmp_path / "missing")
