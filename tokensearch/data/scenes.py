"""Digit scenes: the labelled images that the package carries with it.

A handwritten digit at a random place, size, slant and colour lies on a random crop of a photograph.
Both come with scikit-learn (the UCI optical digits, and its two sample photographs), so nothing is
downloaded. The backgrounds hold both kinds of waste that token reduction lives on: patches that do
not matter, and patches that look alike.

A scene is a pure function of one digit and one row of uniform draws. Row `i` of a split depends on
the purpose and on `i` alone, so a scene is the same whatever batch it is made in. Digits of one
purpose never appear in another; the two photographs are shared by all.
`scene_batches` paints the scenes to train on.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.nn import functional as F

CLASSES = 10
SCENE_PX = 224  # the side that the geometry below is written for
PATCH_PX = 16  # the patches of the demo model

PURPOSES = ("train", "search", "select", "report")
_HELD_OUT_PER_CLASS = {
    "search": 20,
    "select": 20,
    "report": 40,
}  # of about 180 per class; the rest trains

_VERSION = 1  # raise it with any change that alters a pixel
SEED = 20240229
_PARTITION_STREAM = 99  # any number that is not the index of a purpose
DRAWS = 24  # uniform numbers that make one scene; a few are spare
_PHOTO_SCALES = (
    0.55,
    0.65,
    0.8,
    1.0,
    1.25,
)  # 0.55 of 427 rows is the smallest that still covers 224 px
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
EXTREMES = (0.05, 0.95)  # quantiles of what the ink hides; a stray pixel hides no digit
_GLYPH_PX = 50  # the 8 x 8 digits, padded to 10 x 10, five times finer
GLYPH_MARGIN = 10 / 8  # side of the padded square over that of the digit


@dataclass(frozen=True)
class Recipe:
    """How scenes are drawn; lengths in pixels of a 224-px scene.

    Attributes:
        digit_px: Least and greatest side of the square that holds the digit.
        plain_share: Share of scenes with one flat colour instead of a photograph.
        rotation_degrees: Greatest rotation, either way.
        shear: Greatest horizontal shear, either way.
        stretch: Greatest change of one side over the other, either way, as a share.
        weight: Least and greatest grey level, of 1, at which ink begins: low is a bold stroke.
        softness: Grey levels, of 1, from no ink to full ink. Under 0.5, blotted holes fill up.
        contrast: Least difference of luminance, of 1, between the ink and what is under it.
    """

    digit_px: tuple[float, float] = (40.0, 88.0)
    plain_share: float = 0.0
    rotation_degrees: float = 12.0
    shear: float = 0.1
    stretch: float = 0.1
    weight: tuple[float, float] = (0.15, 0.25)
    softness: float = 0.6
    contrast: float = 0.4

    def scaled(self, factor: float) -> Recipe:
        """Return the recipe for scenes whose side is `factor` times 224 px."""
        low, high = self.digit_px
        return Recipe(**{**asdict(self), "digit_px": (low * factor, high * factor)})


def split_scenes(purpose: str, count: int, *, size: int = SCENE_PX) -> tuple[Tensor, Tensor]:
    """Return the first `count` scenes of a split.

    Args:
        purpose: "search", "select" or "report".
        count: How many; scene `i` shows a digit of class `i % 10`.
        size: Side in pixels. The geometry scales with it.

    Returns:
        Images, uint8 (count, 3, size, size), and labels, int64 (count,).
    """
    scale = size / SCENE_PX
    recipe = Recipe().scaled(scale)
    digits = _split_digits(purpose, count)
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for i, digit in enumerate(digits):
        draws = _split_draws(purpose, i)
        images[i] = one_scene(digit, draws, recipe, size=size, photo_scale=scale)
    return images, digit_labels()[torch.as_tensor(digits, dtype=torch.int64)]


def scenes_digest(purpose: str, count: int, size: int) -> str:
    """Return "sha256:..." of the recipe of a split.

    It covers digits, seed, version and geometry, not pixels, whose last bit may differ between
    machines.
    """
    recipe = {
        "version": _VERSION,
        "seed": SEED,
        "purpose": purpose,
        "size": size,
        "digits": _split_digits(purpose, count),
        "geometry": asdict(Recipe()),
        "photo_scales": _PHOTO_SCALES,
    }
    return "sha256:" + hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@cache
def digit_ids(purpose: str) -> tuple[int, ...]:
    """Return which of scikit-learn's 1,797 digits belong to a purpose, class after class."""
    if purpose not in PURPOSES:
        raise ValueError(f"no such purpose: {purpose!r}; there are {', '.join(PURPOSES)}")
    return tuple(i for label in range(CLASSES) for i in _class_ids(purpose, label))


@cache
def _class_ids(purpose: str, label: int) -> tuple[int, ...]:
    members = torch.nonzero(digit_labels() == label).flatten().numpy()
    # Sorted uniform draws, since Generator.permutation may change with numpy (NEP 19).
    draws = np.random.default_rng((SEED, _PARTITION_STREAM, label)).random(len(members))
    shuffled = [int(i) for i in members[np.argsort(draws)]]
    start = 0
    for name, share in _HELD_OUT_PER_CLASS.items():
        if name == purpose:
            return tuple(shuffled[start : start + share])
        start += share
    return tuple(shuffled[start:])


def _split_digits(purpose: str, count: int) -> list[int]:
    if purpose not in _HELD_OUT_PER_CLASS:
        splits = ", ".join(_HELD_OUT_PER_CLASS)
        raise ValueError(f"no such split: {purpose!r}; there are {splits}")
    pools = [_class_ids(purpose, label) for label in range(CLASSES)]
    return [pools[i % CLASSES][i // CLASSES % len(pools[i % CLASSES])] for i in range(count)]


def _split_draws(purpose: str, index: int) -> NDArray[np.float64]:
    return np.random.default_rng((SEED, PURPOSES.index(purpose), index)).random(DRAWS)


def one_scene(
    digit: int, draws: NDArray[np.float64], recipe: Recipe, *, size: int, photo_scale: float
) -> Tensor:
    """Return the scene that `draws`, DRAWS uniform numbers, make: uint8 (3, size, size)."""
    u = [float(x) for x in draws]
    image = _background(u[:10], recipe, size=size, photo_scale=photo_scale)
    ink, x, y = _ink(digit, u[10:18], recipe, size=size)
    # The padded square may reach over the edge; only what lies inside is painted.
    inside = ink[max(0, -y) : size - y, max(0, -x) : size - x]
    rows = slice(max(0, y), max(0, y) + inside.shape[0])
    columns = slice(max(0, x), max(0, x) + inside.shape[1])
    under = image[:, rows, columns]
    colour = _ink_colour(under, inside, u[18:22], recipe)
    image[:, rows, columns] = torch.lerp(under, colour.expand_as(under), inside)
    return image.mul_(255).round_().to(torch.uint8)


def _background(u: list[float], recipe: Recipe, *, size: int, photo_scale: float) -> Tensor:
    if u[0] < recipe.plain_share:
        return torch.tensor(u[1:4]).view(3, 1, 1).repeat(1, size, size)
    album = photos(photo_scale)
    photo = album[int(u[4] * len(album))]
    top = int(u[5] * (photo.shape[1] - size + 1))
    left = int(u[6] * (photo.shape[2] - size + 1))
    crop = photo[:, top : top + size, left : left + size]
    mirrored = [axis for axis, draw in ((2, u[7]), (1, u[8])) if draw < 0.5]
    gain = (0.6 + 0.5 * u[9]) / 255  # from dusk to slightly overexposed
    return crop.flip(mirrored).float().mul_(gain).clamp_(max=1)


def _ink(digit: int, u: list[float], recipe: Recipe, *, size: int) -> tuple[Tensor, int, int]:
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
    x, y = (round(draw * (size - digit_px) - margin) for draw in u[5:7])
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
    hidden = torch.tensordot(luminance, under, 1)[::3, ::3][ink[::3, ::3] > 0]
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
def _bundled_digits() -> Any:
    return load_digits()


@cache
def digit_labels() -> Tensor:
    """Return which digit each of scikit-learn's 1,797 is, int64."""
    return torch.as_tensor(_bundled_digits().target, dtype=torch.int64)


@cache
def glyphs() -> Tensor:
    """Return the digits, smooth and finer, float32 (1797, 50, 50), 0 to 1."""
    grey = torch.as_tensor(_bundled_digits().images, dtype=torch.float32)[:, None] / 16
    padded = F.pad(grey, (1, 1, 1, 1))
    return F.interpolate(padded, size=_GLYPH_PX, mode="bicubic").clamp_(0, 1)[:, 0]


@cache
def photos(scale: float) -> tuple[Tensor, ...]:
    """Return scikit-learn's two photographs at each scale, uint8 (3, rows, columns)."""
    originals = [
        torch.tensor(photo).permute(2, 0, 1)[None] for photo in load_sample_images().images
    ]
    return tuple(_resized(photo, scale * s) for s in _PHOTO_SCALES for photo in originals)


def _resized(photo: Tensor, scale: float) -> Tensor:
    rows, columns = (math.ceil(side * scale) for side in photo.shape[2:])
    smooth = F.interpolate(photo.float(), size=(rows, columns), mode="bilinear", antialias=True)
    return smooth[0].round_().to(torch.uint8)
