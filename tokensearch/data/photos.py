"""Crops of photographs without labels: what stays the same is measured on them.

Some photographs come with the package and with packages that it needs, so nothing is downloaded;
scikit-image adds its own where it is installed. A user's own few are cut the same way. Each is cut
into one strip per purpose, and a crop stays in its strip: no pixel serves two purposes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torch import Tensor

from tokensearch.data.fair import LEAST_IMAGES
from tokensearch.data.folder import folder_splits
from tokensearch.data.images import SUFFIXES, read_image, size_of
from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, UNLABELLED, Purpose, Sizes, Split, Splits
from tokensearch.errors import DataError

_SCIKIT_LEARN = ("china.jpg", "flower.jpg")
_OWN = ("astronaut.jpg", "brick.jpg", "chelsea.jpg", "coffee.jpg", "gravel.jpg", "rocket.jpg")
_MATPLOTLIB = ("grace_hopper.jpg",)
_SCIKIT_IMAGE = (
    "camera.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
)

_VERSION = 2  # raise it with any change that alters a crop
_LEAST_SHARE = 0.45  # of the strip's shorter side
_LEAST_PX = 96  # under it a crop shows hardly more than texture
_LONGEST_PX = 1920  # larger photographs are made smaller: a crop of a third is enough for 640 px
_KEPT = 64  # photographs that stay decoded, of 7 MB at most
# So many pictures fill three splits by themselves: each is then one image.
MANY = 3 * LEAST_IMAGES


@dataclass(frozen=True, slots=True)
class Crop:
    """A square of a photograph, in its pixels."""

    photo: Path
    left: int
    top: int
    side: int
    mirrored: bool


def bundled_photos() -> tuple[Path, ...]:
    """Return the photographs that packages bring, always in the same order."""
    folders = (
        (_package("sklearn") / "datasets" / "images", _SCIKIT_LEARN),
        (Path(__file__).with_name("photographs"), _OWN),
        (Path(mpl.get_data_path()) / "sample_data", _MATPLOTLIB),
        (_package("skimage") / "data", _SCIKIT_IMAGE),
    )
    paths = [folder / name for folder, names in folders for name in names]
    return tuple(path for path in paths if path.is_file())


def _package(name: str) -> Path:
    """Return the folder of a package, which is not imported; where it is not, one without files."""
    spec = find_spec(name)
    return Path("/nonexistent") if spec is None or spec.origin is None else Path(spec.origin).parent


def photo_splits(*, data_config: Mapping[str, object], sizes: Sizes, seed: int) -> Splits:
    """Return seeded random crops, some mirrored, resized to the model's input size.

    Args:
        data_config: timm's data config of the model.
        sizes: Images per split; any number, since crops are drawn.
        seed: Equal seeds give equal crops; image `i` does not depend on the sizes.

    Raises:
        DataError: The model does not take RGB images.
    """
    photos = bundled_photos()
    name = f"crops of {len(photos)} photographs"
    return _crop_splits(name, photos, Preprocessing.of(data_config), sizes=sizes, seed=seed)


def picture_splits(
    folder: Path, *, data_config: Mapping[str, object], sizes: Sizes, seed: int
) -> Splits:
    """Return splits of the pictures of a flat folder, without labels.

    Of `MANY` pictures or more each is one image, prepared as the model's are; of fewer, crops.

    Raises:
        DataError: No such folder, folders of pictures within it, no pictures, or one that is too
            small to be cut.
    """
    photos = _pictures_in(folder)
    if len(photos) >= MANY:
        splits = folder_splits(folder, data_config=data_config, sizes=sizes, seed=seed)
        return replace(splits, name=f"{len(photos)} pictures in {folder.name}")
    for photo in photos:
        rows, columns = _pixels(photo).shape[:2]
        if max(rows, columns) < len(PURPOSES) * _LEAST_PX or min(rows, columns) < _LEAST_PX:
            raise DataError(
                f"picture {photo} has {columns} x {rows} pixels; fewer than {MANY} pictures are "
                f"cut into crops, for which one side must have {len(PURPOSES) * _LEAST_PX} and the "
                f"other {_LEAST_PX} at least"
            )
    count = "1 picture" if len(photos) == 1 else f"{len(photos)} pictures"
    name = f"crops of {count} in {folder.name}"
    return _crop_splits(name, photos, Preprocessing.of(data_config), sizes=sizes, seed=seed)


def _pictures_in(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of pictures")
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    photos = [path for path in files if path.is_file() and path.suffix.lower() in SUFFIXES]
    if not photos:
        within = any(path.is_dir() for path in files)
        way = "give class folders to --data DIR" if within else "put some in, or name another"
        raise DataError(f"folder {folder} holds no pictures ({', '.join(SUFFIXES)}); {way}")
    return tuple(photos)


def draw_crop(photos: Sequence[Path], purpose: Purpose, index: int, *, seed: int) -> Crop:
    """Return crop `index` of a purpose; photographs take turns."""
    side_draw, x, y, mirror = np.random.default_rng((seed, PURPOSES.index(purpose), index)).random(
        4
    )
    number = index % len(photos)
    left, top, width, height = _strip(photos[number], number, purpose)
    most = min(width, height)
    least = min(most, max(_LEAST_PX, int(_LEAST_SHARE * most)))
    side = least + int((most - least) * side_draw)
    across, down = left + int(x * (width - side + 1)), top + int(y * (height - side + 1))
    return Crop(photos[number], across, down, side, mirrored=bool(mirror < 0.5))


def _crop_splits(
    name: str, photos: Sequence[Path], preprocessing: Preprocessing, *, sizes: Sizes, seed: int
) -> Splits:
    recipe = {
        "photos": [(photo.name, size_of(photo)) for photo in photos],
        "version": _VERSION,
        "seed": seed,
    }

    def split(purpose: Purpose) -> Split:
        count = sizes.of(purpose)

        def read(index: int) -> tuple[Tensor, int]:
            return _cut(draw_crop(photos, purpose, index, seed=seed), preprocessing), UNLABELLED

        dataset = Pixels(read, count, preprocessing)
        own = recipe | {"purpose": purpose, "count": count}
        return Split(purpose, dataset, digest(own, preprocessing), labelled=False)

    return Splits(name, **{purpose: split(purpose) for purpose in PURPOSES})


def _strip(photo: Path, number: int, purpose: Purpose) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the part of a photograph that serves one purpose.

    Photograph after photograph hands its strips out in another order, so that no purpose has only
    edges.
    """
    strip = (PURPOSES.index(purpose) + number) % len(PURPOSES)
    rows, columns = _pixels(photo).shape[:2]
    if columns >= rows:
        width = columns // len(PURPOSES)
        return strip * width, 0, width, rows
    height = rows // len(PURPOSES)
    return 0, strip * height, columns, height


def _cut(crop: Crop, preprocessing: Preprocessing) -> Tensor:
    """Return the crop at the model's input size, uint8 (3, rows, columns)."""
    height, width = preprocessing.shape
    tall, wide = (crop.side * side // max(height, width) for side in (height, width))
    top, left = crop.top + (crop.side - tall) // 2, crop.left + (crop.side - wide) // 2
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    # Cut before resizing, or the interpolation would look over the edge into another split.
    pixels = _pixels(crop.photo)[rows, columns]
    image = Image.fromarray(np.ascontiguousarray(pixels[:, ::-1] if crop.mirrored else pixels))
    resample = str_to_pil_interp(preprocessing.interpolation)
    return torch.from_numpy(np.array(image.resize((width, height), resample))).permute(2, 0, 1)


@lru_cache(maxsize=_KEPT)
def _pixels(photo: Path) -> NDArray[np.uint8]:
    """Return a photograph, (rows, columns, 3)."""
    image = read_image(photo)
    image.thumbnail((_LONGEST_PX, _LONGEST_PX))
    return np.asarray(image)
