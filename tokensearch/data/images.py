"""A user's image files: whatever lies there is an image within bounds, or one sentence."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from tokensearch.documents import opened
from tokensearch.errors import DataError

# Decoded and converted, so many take 0.7 GB; the largest cameras have as many.
MAX_PIXELS = 100 * 10**6
# As a file: texts within an image count, which are read whole and copied.
MAX_IMAGE_BYTES = 256 * 2**20
# What models are trained on. Others are not guessed by their first bytes: some run programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def read_image(path: Path) -> Image.Image:
    """Return an image in RGB; DataError names a file that is none, or that is beyond the bounds."""
    with _opened(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > MAX_IMAGE_BYTES:
            raise DataError(
                f"image {path} has {size:,} bytes; at most {MAX_IMAGE_BYTES:,} are read"
            )
        try:
            return _decoded(file)
        except UnidentifiedImageError as error:
            known = ", ".join(FORMATS)
            raise DataError(f"image {path} cannot be read: it is none of {known}") from error
        except Exception as error:  # each format has errors of its own
            reason = str(error).splitlines() or [type(error).__name__]
            raise DataError(f"image {path} cannot be read: {reason[0]}") from error


def size_of(path: Path) -> int:
    """Return an image file's bytes; DataError where there is none."""
    with _opened(path) as file:
        return os.fstat(file.fileno()).st_size


def refuse_loops(directory: Path) -> None:
    """Refuse a folder that holds itself by a link: whoever follows links never ends in it."""
    chains: list[tuple[Path, tuple[Path, ...]]] = [(directory, (directory.resolve(),))]
    while chains:
        folder, around = chains.pop()
        for inside in folder.iterdir():
            if inside.is_dir():
                if (real := inside.resolve()) in around:
                    raise DataError(f"folder {inside} is a link to {real}, which holds it")
                chains.append((inside, (*around, real)))


def _opened(path: Path) -> BinaryIO:
    try:
        return opened(path, what="an image", error=DataError)
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error


def _decoded(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():  # Pillow warns from 89 megapixels on
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width} x {image.height} pixels, over {MAX_PIXELS:,}")
    return image.convert("RGB")
