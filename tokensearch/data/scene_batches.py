"""Digit scenes to train on, many at once and on any device.

What `scenes` paints one after the other for the splits, whose every byte is promised, is painted
here for a whole batch, without a loop over its scenes. Equal draws give equal scenes but for
rounding: no byte is off by more than one (`tests/data/test_scene_batches.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.data.scenes import (
    DRAWS,
    EXTREMES,
    GLYPH_MARGIN,
    LUMINANCE,
    PATCH_PX,
    PURPOSES,
    SEED,
    Recipe,
    digit_ids,
    digit_labels,
    glyphs,
    photos,
)

_LATTICE = 3  # every third row and column under the ink is looked at, as in `scenes`
_LAST = 2.0  # more than any luminance: sorted behind all of them


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes, on one device.

    Attributes:
        images: uint8, (count, 3, size, size).
        labels: int64, (count,).
        ink: float32, (count, size // 16, size // 16): share of each patch that the digit covers.
    """

    images: Tensor
    labels: Tensor
    ink: Tensor


@dataclass(frozen=True)
class _Album:
    """Photographs of several sizes as one row of pixels, so that one index reaches any of them."""

    pixels: Tensor  # uint8, (3, pixels of all photographs)
    first: Tensor  # int64, (photographs,): where each begins
    rows: Tensor
    columns: Tensor


def training_scenes(
    seed: tuple[int, ...],
    count: int,
    recipe: Recipe,
    *,
    size: int,
    device: torch.device | str = "cpu",
) -> Scenes:
    """Return scenes of training digits, drawn by `seed`, on `device`.

    Args:
        seed: Equal seeds give equal scenes, e.g. `(0, stage, batch)`, on every device.
        count: How many.
        recipe: The geometry. It is not scaled: a `size` under 224 px gives a window of a scene, not
            a smaller scene.
        size: Side in pixels, a multiple of 16.
        device: Where they are painted.
    """
    rng = np.random.default_rng((SEED, PURPOSES.index("train"), *seed))
    draws = torch.from_numpy(rng.random((count, DRAWS + 1)))
    pool = torch.tensor(digit_ids("train"))
    digits = pool[(draws[:, -1] * len(pool)).long()]
    return painted(digits.to(device), draws.to(device), recipe, size=size)


def painted(
    digits: Tensor, draws: Tensor, recipe: Recipe, *, size: int, photo_scale: float = 1.0
) -> Scenes:
    """Return a scene per digit and row of draws, on the device of the draws.

    Args:
        digits: int64, (count,): which of scikit-learn's digits.
        draws: float64, (count, DRAWS or more), uniform over 0 to 1.
        recipe: The geometry, in pixels of these images.
        size: Side in pixels, a multiple of 16.
        photo_scale: How large the photographs are, against a scene of 224 px.
    """
    images = _backgrounds(draws[:, :10], recipe, size=size, photo_scale=photo_scale)
    ink, corners = _inks(digits, draws[:, 10:18], recipe, size=size)
    colours = _ink_colours(_hidden(images, ink, corners, recipe), draws[:, 18:22], recipe)
    images.lerp_(colours.float()[:, :, None, None], ink[:, None])
    return Scenes(
        images.mul_(255).round_().to(torch.uint8).contiguous(),
        digit_labels().to(digits.device)[digits],
        F.avg_pool2d(ink, PATCH_PX),
    )


def _backgrounds(u: Tensor, recipe: Recipe, *, size: int, photo_scale: float) -> Tensor:
    """Return photograph crops, or flat colours, float32 (count, 3, size, size)."""
    album = _album(photo_scale, u.device)
    photo = (u[:, 4] * len(album.first)).long()
    along = torch.arange(size, device=u.device).expand(len(u), -1)
    columns, rows = (
        (draws * (length[photo] - size + 1)).long()[:, None]
        + torch.where(mirror[:, None] < 0.5, size - 1 - along, along)
        for draws, length, mirror in (
            (u[:, 6], album.columns, u[:, 7]),
            (u[:, 5], album.rows, u[:, 8]),
        )
    )
    line = album.first[photo][:, None] + rows * album.columns[photo][:, None]
    places = (line[:, :, None] + columns[:, None]).flatten()
    crops = album.pixels.index_select(1, places).view(3, len(u), size, size).transpose(0, 1)
    gain = ((0.6 + 0.5 * u[:, 9]) / 255).float()  # as in `scenes`
    crops = crops.float().mul_(gain[:, None, None, None]).clamp_(max=1)
    if not recipe.plain_share:
        return crops
    plain = u[:, 0, None, None, None] < recipe.plain_share
    return torch.where(plain, u[:, 1:4, None, None].float(), crops)


def _inks(digits: Tensor, u: Tensor, recipe: Recipe, *, size: int) -> tuple[Tensor, Tensor]:
    """Return the ink, float32 (count, size, size), and where its square begins, (count, 2), x, y.

    A square may begin outside the scene.
    """
    low, high = recipe.digit_px
    digit_px = low + (high - low) * u[:, 0]
    side = torch.ceil(digit_px * GLYPH_MARGIN)
    corners = torch.round(u[:, 5:7] * (size - digit_px)[:, None] - (side - digit_px)[:, None] / 2)
    along = torch.arange(size, device=u.device) - corners[:, :, None]  # in the square's pixels
    inside = (along >= 0) & (along < side[:, None, None])
    x, y = ((2 * along + 1) / side[:, None, None] - 1).float().unbind(1)
    grid = _transformed(x[:, None, :], y[:, :, None], u[:, 1:4], recipe)
    grey = F.grid_sample(_glyphs(u.device)[digits][:, None], grid, align_corners=False)[:, 0]
    threshold = recipe.weight[0] + (recipe.weight[1] - recipe.weight[0]) * u[:, 4]
    ink = grey.sub_(_each(threshold)).div_(recipe.softness).clamp_(0, 1)
    return ink.mul_(inside[:, 1, :, None] & inside[:, 0, None, :]), corners.long()


def _transformed(x: Tensor, y: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Turn, slant and stretch: return places in the glyph, (count, size, size, 2)."""
    turn, shear, stretch = (2 * u - 1).unbind(1)
    angle = math.radians(recipe.rotation_degrees) * turn
    wide = 1 + recipe.stretch * stretch
    across = angle.cos() * wide, -wide * angle.sin() + recipe.shear * shear
    down = angle.sin() / wide, angle.cos() / wide
    return torch.stack([x * _each(a) + y * _each(b) for a, b in (across, down)], -1)


def _each(values: Tensor) -> Tensor:
    """Return a number per scene, float64 (count,), as one to multiply its pixels by."""
    return values.float()[:, None, None]


def _hidden(images: Tensor, ink: Tensor, corners: Tensor, recipe: Recipe) -> Tensor:
    """Return the darkest and lightest luminance under the ink but for outliers, (count, 2)."""
    size, device = images.shape[-1], images.device
    widest = min(size, math.ceil(recipe.digit_px[1] * GLYPH_MARGIN))
    steps = torch.arange(0, widest, _LATTICE, device=device)
    columns, rows = (corners.clamp(min=0)[:, :, None] + steps).unbind(1)
    within = (rows < size)[:, :, None] & (columns < size)[:, None]
    places = rows.clamp(max=size - 1)[:, :, None] * size + columns.clamp(max=size - 1)[:, None]
    places = places.flatten(1)
    inked = (ink.flatten(1).gather(1, places) > 0) & within.flatten(1)
    under = images.flatten(2).gather(2, places[:, None].expand(-1, 3, -1))
    luminance = torch.einsum("c,bcn->bn", torch.tensor(LUMINANCE, device=device), under)
    ordered = luminance.masked_fill(~inked, _LAST).sort(1).values
    last = (inked.sum(1, keepdim=True) - 1).clamp(min=0)
    rank = last * torch.tensor(EXTREMES, device=device)
    below, above = (ordered.gather(1, place.long()) for place in (rank.floor(), rank.ceil()))
    return torch.lerp(below, above, rank.frac())


def _ink_colours(hidden: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Return colours, float64 (count, 3), far enough in luminance from what the ink will hide."""
    darkest, lightest = hidden.double().unbind(1)
    lighter = 1 - lightest > darkest
    room = torch.where(lighter, 1 - lightest, darkest)
    contrast = room.clamp(max=recipe.contrast) + (room - recipe.contrast).clamp(min=0) * u[:, 3]
    target = torch.where(lighter, lightest + contrast, darkest - contrast)[:, None]
    luminance = torch.tensor(LUMINANCE, device=u.device, dtype=u.dtype)[:, None]
    hue = u[:, :3]
    tinted = (hue * (target / (hue @ luminance + 1e-6))).clamp(0, 1)
    # Clipping a bright tint loses luminance; just enough white brings it back.
    left = tinted @ luminance
    white = (target - left).clamp(min=0) / (1 - left + 1e-6)
    return torch.lerp(tinted, torch.ones_like(tinted), white)


@cache
def _album(scale: float, device: torch.device) -> _Album:
    pages = photos(scale)
    shapes = torch.tensor([page.shape[1:] for page in pages], device=device)
    counts = shapes.prod(1)
    pixels = torch.cat([page.flatten(1) for page in pages], 1).to(device)
    return _Album(pixels, counts.cumsum(0) - counts, *shapes.unbind(1))


@cache
def _glyphs(device: torch.device) -> Tensor:
    return glyphs().to(device)
