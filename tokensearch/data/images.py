"""A user's image files: whatever lies there is an image within bounds, or one sentence."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile

from tokensearch.documents import opened
from tokensearch.errors import DataError, first_line

# As PNG so many take 3 s and 1 GB to decode and convert. Cameras of full frame have 61 million.
MAX_PIXELS = 64 * 10**6
# An image is resized by its shorter side, so that a line of pixels would fill the memory.
MAX_ASPECT = 32
# Pixels times the scans of a JPEG, each of which visits them all (1 ns); progressive ones have 10.
MAX_VISITS = 10**9
# Pillow decodes runs of a BMP in Python, 0.3 us for each two bytes.
MAX_RUN_BYTES = 4 * 2**20
BMP_RUNS = {BmpImageFile.COMPRESSIONS[name] for name in ("RLE4", "RLE8")}
# As a file: texts within an image count, which are read whole and copied.
DEEPEST = 2**16 - 1  # brightest value of a pixel of 16 bits
MAX_IMAGE_BYTES = 256 * 2**20
# What models are trained on. Others are not guessed by their first bytes: some run programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


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
            raise DataError(f"image {path} cannot be read: {first_line(error)}") from error


def size_of(path: Path) -> int:
    """Return an image file's bytes; DataError where there is none."""
    with _opened(path) as file:
        return os.fstat(file.fileno()).st_size


def refuse_loops(directory: Path) -> None:
    """Refuse a folder that is reached in two ways: its images would count twice, or without end.

    Whoever follows links never ends in a folder that holds itself, and hardly where folders hold
    one another many times over.
    """
    seen = {directory.resolve(): directory}
    waiting = [directory]
    while waiting:
        for inside in waiting.pop().iterdir():
            if inside.is_dir():
                real = inside.resolve()
                if real in seen:
                    raise DataError(
                        f"folder {inside} leads to the same images as {seen[real]}, which would "
                        f"count twice; remove one of the two links"
                    )
                seen[real] = inside
                waiting.append(inside)


def _opened(path: Path) -> BinaryIO:
    try:
        return opened(path, what="an image", error=DataError)
    except DataError as error:
        raise DataError(f"image {path}: {error}") from error


def _decoded(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():  # Pillow warns from 89 megapixels on
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)
    _check_work(image, file)
    return _eight_bits(image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel: Pillow would cut off what is brighter than 255."""
    if image.mode.startswith("I"):  # I;16 and its byte orders; I is what TIFF and PGM make of it
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= DEEPEST:
            raise ValueError(f"it has values beyond 0 to {DEEPEST}; save it with 8 or 16 bits")
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("it has floating-point values, of no known range; save it with 8 bits")
    return image


def _check_work(image: Image.Image, file: BinaryIO) -> None:
    """ValueError if it would take more than seconds to decode."""
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, over {MAX_PIXELS:,}; make it smaller"
        )
    if max(image.size) > MAX_ASPECT * min(image.size):
        raise ValueError(
            f"it has {image.width} x {image.height} pixels; one side may be at most {MAX_ASPECT} "
            f"times the other"
        )
    if isinstance(image, JpegImageFile):
        file.seek(0)
        scans = file.read().count(
            b"\xff\xda"
        )  # the mark of a scan; within one 0xff is followed by 0
        if pixels * scans > MAX_VISITS:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels in {scans} scans, together over "
                f"{MAX_VISITS:,}; save it anew"
            )
    runs = isinstance(image, BmpImageFile) and image.info["compression"] in BMP_RUNS
    if runs and os.fstat(file.fileno()).st_size > MAX_RUN_BYTES:
        raise ValueError(
            f"it is a BMP of coded runs with more than {MAX_RUN_BYTES:,} bytes; save it as PNG"
        )
