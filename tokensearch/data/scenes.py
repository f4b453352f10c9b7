"""Digit scenes: the labelled images that the package carries with it.

Nine handwritten digits at random places, of random size, slant and colour, lie on a random crop of
a photograph. The label is the digit that occurs most often, so every digit counts, and with it
every patch that it lies on. Digits and two photographs come with scikit-learn (the UCI optical
digits), six photographs with this package, so nothing is downloaded. The backgrounds hold both
kinds of waste that token reduction lives on: patches that do not matter, and patches that look
alike.

A scene is a pure function of its digits and one row of uniform draws. Row `i` of a split depends on
the purpose and on `i` alone, so a scene is the same whatever batch it is made in. Digits of one
purpose never appear in another; the photographs are shared by all.
`scene_batches` paints the scenes to train on.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

from tokensearch.data.digits import (
    CLASSES,
    GLYPH_MARGIN,
    PURPOSES,
    SEED,
    Placement,
    glyphs,
    place_digits,
    placing_draws,
)

SCENE_PX = 224  # the side that the geometry below is written for
PATCH_PX = 16  # the patches of the demo model

VERSION = 2  # raise it with any change that alters a pixel
_PHOTOGRAPHS = Path(__file__).with_name("photographs")
BACKGROUND_DRAWS = 10  # uniform numbers that make a background
DIGIT_DRAWS = 12  # and a digit: two are spare
_PHOTO_SCALES = (
    0.55,
    0.65,
    0.8,
    1.0,
    1.25,
)  # 0.55 of 427 rows is the smallest that still covers 224 px
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
EXTREMES = (0.05, 0.95)  # quantiles of what the ink hides; a stray pixel hides no digit


@dataclass(frozen=True)
class Recipe:
    """How scenes are drawn; lengths in pixels of a 224-px scene.

    The defaults show a single digit, from which training begins.

    Attributes:
        digit_px: Least and greatest side of the square that holds the digit.
        plain_share: Share of scenes with one flat colour instead of a photograph.
        rotation_degrees: Greatest rotation, either way.
        shear: Greatest horizontal shear, either way.
        stretch: Greatest change of one side over the other, either way, as a share.
        weight: Least and greatest grey level, of 1, at which ink begins: low is a bold stroke.
        softness: Grey levels, of 1, from no ink to full ink. Under 0.5, blotted holes fill up.
        contrast: Least difference of luminance, of 1, between the ink and what is under it.
        cells: Cells along a side of the grid in which digits lie, at most one in each.
        tallies: How often the classes of a scene occur, the label's first. A scene has one of
            these, all as likely, and all of as many digits.
        photographs: How many photographs serve as backgrounds.
    """

    digit_px: tuple[float, float] = (40.0, 88.0)
    plain_share: float = 0.0
    rotation_degrees: float = 12.0
    shear: float = 0.1
    stretch: float = 0.1
    weight: tuple[float, float] = (0.15, 0.25)
    softness: float = 0.6
    contrast: float = 0.4
    cells: int = 1
    tallies: tuple[tuple[int, ...], ...] = ((1,),)
    photographs: int = 2

    @property
    def digits(self) -> int:
        """How many digits a scene shows."""
        return sum(self.tallies[0])

    @property
    def lattice_px(self) -> int:
        """How far apart the pixels under the ink lie that are looked at; thin strokes want all."""
        return 3 if self.digit_px[0] >= 28 else 1

    @property
    def painting_draws(self) -> int:
        """How many uniform numbers paint a scene of digits that are placed."""
        return BACKGROUND_DRAWS + DIGIT_DRAWS * self.digits

    @property
    def draws(self) -> int:
        """How many uniform numbers make a scene: the first paint it, the others place digits."""
        return self.painting_draws + placing_draws(self.tallies, self.cells)

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe for scenes whose side is `factor` times 224 px."""
        low, high = self.digit_px
        return Recipe(**{**asdict(self), "digit_px": (low * factor, high * factor)})


# Of the splits. Many small digits, so that few patches hold each and all of them count.
TALLY = Recipe(
    digit_px=(28.0, 48.0),
    weight=(0.2, 0.32),  # thinner than large ones, or holes fill up
    cells=4,
    tallies=((3, 2, 2, 1, 1), (4, 2, 2, 1), (4, 3, 2)),
    photographs=8,
)


def split_scenes(
    purpose: str, count: int, *, size: int = SCENE_PX, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Return scenes `first` to `count`, left out, of a split.

    Args:
        purpose: "search", "select" or "report".
        count: How many; in scene `i` the digit `i % 10` occurs most often.
        size: Side in pixels. The geometry scales with it.
        first: How many are left out: they are the same whatever is drawn with them.

    Returns:
        Images, uint8 (count - first, 3, size, size), and labels, int64 (count - first,).
    """
    scale = size / SCENE_PX
    recipe = TALLY.scaled(scale)
    draws, placed = split_placement(purpose, count, recipe, first=first)
    images = torch.empty(count - first, 3, size, size, dtype=torch.uint8)
    for i, (digits, cells) in enumerate(zip(placed.digits, placed.cells, strict=True)):
        images[i] = one_scene(
            digits.tolist(), cells.tolist(), draws[i].numpy(), recipe, size=size, photo_scale=scale
        )
    return images, placed.labels


def split_placement(
    purpose: str, count: int, recipe: Recipe, *, first: int = 0
) -> tuple[Tensor, Placement]:
    """Return the draws of scenes `first` to `count`, float64, a row each, and their digits."""
    if purpose not in PURPOSES[1:]:
        splits = ", ".join(PURPOSES[1:])
        raise ValueError(f"no such split: {purpose!r}; there are {splits}")
    rows = [_split_draws(purpose, i, recipe) for i in range(first, count)]
    draws = torch.from_numpy(np.stack(rows))
    placing = draws[:, recipe.painting_draws :]
    labels = torch.arange(first, count) % CLASSES
    return draws, place_digits(placing, purpose, recipe.tallies, recipe.cells, labels=labels)


def scenes_digest(purpose: str, count: int, size: int) -> str:
    """Return "sha256:..." of the recipe of a split.

    It covers digits, seed, version and geometry, not pixels, whose last bit may differ between
    machines.
    """
    recipe = {
        "version": VERSION,
        "seed": SEED,
        "purpose": purpose,
        "size": size,
        "digits": split_placement(purpose, count, TALLY)[1].digits.tolist(),
        "geometry": asdict(TALLY),
        "photo_scales": _PHOTO_SCALES,
    }
    return "sha256:" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def _split_draws(purpose: str, index: int, recipe: Recipe) -> NDArray[np.float64]:
    return np.random.default_rng((SEED, PURPOSES.index(purpose), index)).random(recipe.draws)


def one_scene(
    digits: Sequence[int],
    cells: Sequence[int],
    draws: NDArray[np.float64],
    recipe: Recipe,
    *,
    size: int,
    photo_scale: float,
) -> Tensor:
    """Return the scene of digits in cells of the grid that `draws` make: uint8 (3, size, size)."""
    u = [float(x) for x in draws]
    background = _background(u[:BACKGROUND_DRAWS], recipe, size=size, photo_scale=photo_scale)
    image = background.clone()
    for i, (digit, cell) in enumerate(zip(digits, cells, strict=True)):
        own = u[BACKGROUND_DRAWS + DIGIT_DRAWS * i :]
        ink, x, y = _ink(digit, cell, own[:8], recipe, size=size)
        # The padded square may reach over the edge; only what lies inside is painted.
        inside = ink[max(0, -y) : size - y, max(0, -x) : size - x]
        if not inside.any():  # a few pixels may all lie beside a stroke
            continue
        rows = slice(max(0, y), max(0, y) + inside.shape[0])
        columns = slice(max(0, x), max(0, x) + inside.shape[1])
        colour = _ink_colour(background[:, rows, columns], inside, own[8:12], recipe)
        under = image[:, rows, columns]
        image[:, rows, columns] = torch.lerp(under, colour.expand_as(under), inside)
    return image.mul_(255).round_().to(torch.uint8)


def _background(u: list[float], recipe: Recipe, *, size: int, photo_scale: float) -> Tensor:
    if u[0] < recipe.plain_share:
        return torch.tensor(u[1:4]).view(3, 1, 1).repeat(1, size, size)
    album = photos(photo_scale, recipe.photographs)
    photo = album[int(u[4] * len(album))]
    top = int(u[5] * (photo.shape[1] - size + 1))
    left = int(u[6] * (photo.shape[2] - size + 1))
    crop = photo[:, top : top + size, left : left + size]
    mirrored = [axis for axis, draw in ((2, u[7]), (1, u[8])) if draw < 0.5]
    gain = (0.6 + 0.5 * u[9]) / 255  # from dusk to slightly overexposed
    return crop.flip(mirrored).float().mul_(gain).clamp_(max=1)


def _ink(
    digit: int, cell: int, u: list[float], recipe: Recipe, *, size: int
) -> tuple[Tensor, int, int]:
    """Return the ink, (side, side), and the left and top edge of that square in the scene."""
    low, high = recipe.digit_px
    digit_px = low + (high - low) * u[0]
    side = math.ceil(digit_px * GLYPH_MARGIN)
    theta = torch.tensor([_transform(u[1:4], recipe)])
    grid = F.affine_grid(theta, [1, 1, side, side], align_corners=False)
    grey = F.grid_sample(glyphs()[digit][None, None], grid, align_corners=False)[0, 0]
    threshold = recipe.weight[0] + (recipe.weight[1] - recipe.weight[0]) * u[4]
    ink = ((grey - threshold) / recipe.softness).clamp_(0, 1)
    margin = (side - digit_px) / 2
    cell_px = size / recipe.cells
    row, column = divmod(cell, recipe.cells)
    x, y = (
        round(draw * (cell_px - digit_px) - margin + index * cell_px)
        for draw, index in ((u[5], column), (u[6], row))
    )
    return ink, x, y


def _transform(u: list[float], recipe: Recipe) -> list[list[float]]:
    """Return the 2 x 3 affine map from the painted square to the glyph."""
    turn, shear, stretch = (2 * draw - 1 for draw in u)
    angle = math.radians(recipe.rotation_degrees * turn)
    cosine, sine = math.cos(angle), math.sin(angle)
    wide = 1 + recipe.stretch * stretch
    slant = recipe.shear * shear
    return [[wide * cosine, -wide * sine + slant, 0.0], [sine / wide, cosine / wide, 0.0]]


def _ink_colour(under: Tensor, ink: Tensor, u: list[float], recipe: Recipe) -> Tensor:
    """Return a colour, (3, 1, 1), far enough in luminance from what the ink will hide."""
    luminance = torch.tensor(LUMINANCE)
    # A third of the rows and columns tells as much. Not the mean: ink may lie on light and dark.
    step = recipe.lattice_px if ink[:: recipe.lattice_px, :: recipe.lattice_px].any() else 1
    hidden = torch.tensordot(luminance, under, 1)[::step, ::step][ink[::step, ::step] > 0]
    darkest, lightest = torch.quantile(hidden, torch.tensor(EXTREMES)).tolist()
    lighter = 1 - lightest > darkest
    edge, room = (lightest, 1 - lightest) if lighter else (darkest, darkest)
    contrast = min(recipe.contrast, room) + max(0.0, room - recipe.contrast) * u[3]
    target = edge + contrast if lighter else edge - contrast
    hue = torch.tensor(u[:3])
    tinted = (hue * (target / (float(hue @ luminance) + 1e-6))).clamp(0, 1)
    # Clipping a bright tint loses luminance; just enough white brings it back.
    left = float(tinted @ luminance)
    white = max(0.0, target - left) / (1 - left + 1e-6)
    return torch.lerp(tinted, torch.ones(3), white).view(3, 1, 1)


@cache
def photos(scale: float, count: int) -> tuple[Tensor, ...]:
    """Return the first photographs at each scale, uint8 (3, rows, columns).

    Two come with scikit-learn, the others with this package (`photographs/README.md`).
    """
    bundled = [np.asarray(Image.open(path)) for path in sorted(_PHOTOGRAPHS.glob("*.jpg"))]
    originals = [
        torch.tensor(photo).permute(2, 0, 1)[None]
        for photo in [*load_sample_images().images, *bundled][:count]
    ]
    return tuple(_resized(photo, scale * s) for s in _PHOTO_SCALES for photo in originals)


def _resized(photo: Tensor, scale: float) -> Tensor:
    rows, columns = (math.ceil(side * scale) for side in photo.shape[2:])
    smooth = F.interpolate(photo.float(), size=(rows, columns), mode="bilinear", antialias=True)
    return smooth[0].round_().to(torch.uint8)
