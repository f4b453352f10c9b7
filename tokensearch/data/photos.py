"""Crops of photographs without labels, for agreement with the baseline.

They come from scikit-learn's two sample photographs, so nothing is downloaded. Each photograph is
cut into one strip per purpose, and a crop stays in its strip: no pixel serves two purposes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data.transforms import str_to_pil_interp
from torch import Tensor

from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, UNLABELLED, Purpose, Sizes, Split, Splits

PHOTOS = ("china.jpg", "flower.jpg")

_VERSION = 1  # raise it with any change that alters a crop
_LEAST_SIDE = (
    0.45  # of the strip's width, 213 px: under 96 px a crop shows hardly more than texture
)


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a photograph, in its pixels."""

    photo: str
    left: int
    top: int
    side: int
    mirrored: bool


def photo_splits(*, data_config: Mapping[str, object], sizes: Sizes, seed: int) -> Splits:
    """Return seeded random crops, some mirrored, resized to the model's input size.

    Args:
        data_config: timm's data config of the model.
        sizes: Images per split; any number, since crops are drawn.
        seed: Equal seeds give equal crops; image `i` does not depend on the sizes.

    Raises:
        DataError: The model does not take RGB images.
    """
    preprocessing = Preprocessing.of(data_config)
    splits = {p: _split(p, sizes.of(p), seed, preprocessing) for p in PURPOSES}
    return Splits("photograph crops without labels", **splits)


def draw_crop(purpose: Purpose, index: int, *, seed: int) -> Crop:
    """Return crop `index` of a purpose; photographs take turns."""
    side_draw, x, y, mirror = np.random.default_rng((seed, PURPOSES.index(purpose), index)).random(
        4
    )
    photo = PHOTOS[index % len(PHOTOS)]
    left, right = _strip(photo, purpose)
    width, height = right - left, _photo(photo).shape[0]
    side = int(width * (_LEAST_SIDE + (1 - _LEAST_SIDE) * side_draw))
    across, down = left + int(x * (width - side + 1)), int(y * (height - side + 1))
    return Crop(photo, across, down, side, mirrored=bool(mirror < 0.5))


def _split(purpose: Purpose, count: int, seed: int, preprocessing: Preprocessing) -> Split:
    def read(index: int) -> tuple[Tensor, int]:
        return _cut(draw_crop(purpose, index, seed=seed), preprocessing), UNLABELLED

    recipe = {
        "photos": PHOTOS,
        "version": _VERSION,
        "seed": seed,
        "purpose": purpose,
        "count": count,
    }
    dataset = Pixels(read, count, preprocessing)
    return Split(purpose, dataset, digest(recipe, preprocessing), labelled=False)


def _strip(photo: str, purpose: Purpose) -> tuple[int, int]:
    """Return the columns of a photograph that serve one purpose."""
    # The second photograph hands its strips out in another order, so no purpose has only edges.
    strip = (PURPOSES.index(purpose) + PHOTOS.index(photo)) % len(PURPOSES)
    width = _photo(photo).shape[1] // len(PURPOSES)
    return strip * width, (strip + 1) * width


def _cut(crop: Crop, preprocessing: Preprocessing) -> Tensor:
    """Return the crop at the model's input size, uint8 (3, rows, columns)."""
    height, width = preprocessing.shape
    tall, wide = (crop.side * side // max(height, width) for side in (height, width))
    top, left = crop.top + (crop.side - tall) // 2, crop.left + (crop.side - wide) // 2
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    # Cut before resizing, or the interpolation would look over the edge into another split.
    pixels = _photo(crop.photo)[rows, columns]
    image = Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if crop.mirrored else pixels))
    resample = str_to_pil_interp(preprocessing.interpolation)
    return torch.from_numpy(np.array(image.resize((width, height), resample))).permute(2, 0, 1)


@cache
def _photo(name: str) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = load_sample_image(name)
    return pixels
