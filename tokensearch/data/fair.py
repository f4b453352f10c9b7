"""Who goes where: a fair, seeded, disjoint choice of images for three splits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tokensearch.data.splits import PURPOSES, Purpose, Sizes
from tokensearch.errors import DataError

# At 20 images the 95 % Wilson interval of an accuracy is already up to 40 points wide, and an exact
# paired test needs 6 images lost, 30 points, to notice. Fewer would look like evidence and be none.
LEAST_IMAGES = 20


def shrunk(sizes: Sizes, found: int, *, where: str) -> Sizes:
    """Return `sizes`, or smaller ones that add up to at most `found` images.

    Every split keeps `LEAST_IMAGES` (or the fewer that were asked for); the rest is shared in
    proportion to what each split asked for beyond that.

    Raises:
        DataError: Not even the least would fit.
    """
    if found >= sizes.total:
        return sizes
    asked = [sizes.of(purpose) for purpose in PURPOSES]
    least = [min(size, LEAST_IMAGES) for size in asked]
    spare = found - sum(least)
    if spare < 0:
        raise DataError(
            f"{where} holds {found} images; the three splits need at least "
            f"{sum(least)} ({' + '.join(map(str, least))})"
        )
    beyond = sizes.total - sum(least)
    return Sizes(
        *(low + spare * (size - low) // beyond for low, size in zip(least, asked, strict=True))
    )


def chosen(labels: Sequence[int], sizes: Sizes, *, seed: int) -> dict[Purpose, list[int]]:
    """Return which images, by index, each split gets: disjoint, stratified by label.

    The images of a class are shuffled and spread evenly over one line of all images. Every stretch
    of that line holds each class by about its share, give or take an image; so do its prefixes.

    Args:
        labels: One per image.
        sizes: Images per split, at most as many as there are labels.
        seed: Equal seeds give equal choices.
    """
    line = _spread(np.asarray(labels, dtype=np.int64), np.random.default_rng(seed))
    found: dict[Purpose, list[int]] = {}
    start = 0
    for purpose in PURPOSES:
        found[purpose] = line[start : start + sizes.of(purpose)]
        start += sizes.of(purpose)
    return found


def _spread(labels: NDArray[np.int64], draws: np.random.Generator) -> list[int]:
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # Ranks of uniform draws: Generator.permutation may change between versions (NEP 19).
        rank = draws.random(len(members)).argsort().argsort()
        place[members] = (rank + draws.random()) / len(members)
    return [int(i) for i in place.argsort(kind="stable")]
