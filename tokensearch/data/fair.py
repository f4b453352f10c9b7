"""Who goes where: a fair, seeded, disjoint choice of images for three splits."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokensearch.data.splits import PURPOSES, Purpose, Sizes
from tokensearch.errors import DataError

# At 20 images the 95 % Wilson interval of an accuracy is already up to 40 points wide, and an exact
# paired test needs 6 images lost, 30 points, to notice. Fewer would look like evidence and be none.
LEAST_IMAGES = 20


def shrink_sizes(sizes: Sizes, available: int, *, where: str) -> Sizes:
    """Return `sizes`, or smaller ones that add up to at most `found` images.

    Every split keeps `LEAST_IMAGES` (or the fewer that were asked for); the rest is shared in
    proportion to what each split asked for beyond that.

    Raises:
        DataError: Not even the least would fit.
    """
    if available >= sizes.total:
        return sizes
    asked = [sizes.of(purpose) for purpose in PURPOSES]
    least = [min(size, LEAST_IMAGES) for size in asked]
    spare = available - sum(least)
    if spare < 0:
        raise DataError(
            f"{where} holds {available} images; the three splits need at least "
            f"{sum(least)} ({' + '.join(map(str, least))})"
        )
    beyond = sizes.total - sum(least)
    return Sizes(
        *(low + spare * (size - low) // beyond for low, size in zip(least, asked, strict=True))
    )


def choose_evenly(
    labels: Sequence[int], sizes: Sizes, *, seed: int, names: Sequence[str] | None = None
) -> dict[Purpose, list[int]]:
    """Return which images, by index, each split gets: disjoint, stratified by label.

    The images of a class are shuffled and spread evenly over one line of all images. Every stretch
    of that line holds each class by about its share, within an image; so do its prefixes.
    Names and seed decide the order, so that an image that changes keeps its place; one that goes
    has the next of its class move up, which at the end of a split is one from the next split.

    Args:
        labels: One per image.
        sizes: Images per split, at most as many as there are labels.
        seed: Equal seeds give equal choices.
        names: One per image, all different; their numbers if there are none.
    """
    draws = [_draw(seed, f"image {n}") for n in names or map(str, range(len(labels)))]
    line = _spread(np.asarray(labels, dtype=np.int64), np.array(draws), seed)
    chosen: dict[Purpose, list[int]] = {}
    start = 0
    for purpose in PURPOSES:
        chosen[purpose] = line[start : start + sizes.of(purpose)]
        start += sizes.of(purpose)
    return chosen


def _draw(seed: int, name: str) -> float:
    """A number from 0 to 1 that is always the same for a seed and a name."""
    bits = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return int.from_bytes(bits) / 2**64


def _spread(labels: NDArray[np.int64], draws: NDArray[np.float64], seed: int) -> list[int]:
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        rank = draws[members].argsort(kind="stable").argsort(kind="stable")
        position[members] = (rank + _draw(seed, f"class {label}")) / len(members)
    return [int(i) for i in position.argsort(kind="stable")]
