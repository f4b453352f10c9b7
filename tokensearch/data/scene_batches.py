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

from tokensearch.data.digits import (
    CLASSES,
    GLYPH_MARGIN,
    PURPOSES,
    SEED,
    Placement,
    digit_labels,
    glyphs,
    place_digits,
)
from tokensearch.data.scenes import (
    BACKGROUND_DRAWS,
    DIGIT_DRAWS,
    EXTREMES,
    LUMINANCE,
    PATCH_PX,
    SCENE_PX,
    Recipe,
    photos,
    split_placement,
)

_LAST = 2.0  # more than any luminance: sorted behind all of them


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes, on one device.

    Attributes:
        images: uint8, (count, 3, size, size).
        labels: int64, (count,).
        ink: float32, (count, size // 16, size // 16): share of each patch that the digit which
            covers most of it covers.
        classes: int64, of the same shape: the class of that digit, any where there is none.
        counts: int64, (count, 10): how many digits of each class there are.
    """

    images: Tensor
    labels: Tensor
    ink: Tensor
    classes: Tensor
    counts: Tensor


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
    photo_scale: float = 1.0,
) -> Scenes:
    """Return scenes of training digits, drawn by `seed`, on `device`.

    Args:
        seed: Equal seeds give equal scenes, e.g. `(0, stage, batch)`, on every device.
        count: How many.
        recipe: The geometry. It is not scaled: a `size` under 224 px gives a window of a scene, not
            a smaller scene.
        size: Side in pixels, a multiple of 16.
        device: Where they are painted.
        photo_scale: How large the photographs are, against a scene of 224 px.
    """
    rng = np.random.default_rng((SEED, PURPOSES.index("train"), *seed))
    draws = torch.from_numpy(rng.random((count, recipe.draws)))
    painting, placing = draws.tensor_split([recipe.painting_draws], 1)
    placed = place_digits(placing, "train", recipe.tallies, recipe.cells)
    there = torch.device(device)
    draws = _sent(painting, there)
    return painted(_placed_on(placed, there), draws, recipe, size=size, photo_scale=photo_scale)


def held_out_scenes(
    purpose: str, count: int, recipe: Recipe, device: torch.device, *, first: int = 0
) -> Scenes:
    """Return scenes `first` to `count`, left out, of the digits of a split, on a device.

    With the recipe of the splits they are the scenes of the split but for rounding.
    """
    painting, placed = split_placement(purpose, count, recipe, first=first)
    return painted(_placed_on(placed, device), painting.to(device), recipe, size=SCENE_PX)


def _placed_on(placed: Placement, device: torch.device) -> Placement:
    return Placement(*(_sent(x, device) for x in (placed.labels, placed.digits, placed.cells)))


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; the CPU does not wait for what a GPU does before."""
    if device.type == "cuda":
        return values.contiguous().pin_memory().to(device, non_blocking=True)
    return values.to(device)


def painted(
    placed: Placement, draws: Tensor, recipe: Recipe, *, size: int, photo_scale: float = 1.0
) -> Scenes:
    """Return a scene per row of draws, on the device of the draws.

    Args:
        placed: Which digits scenes show, and where.
        draws: float64, (count, painting draws of the recipe or more), uniform over 0 to 1.
        recipe: The geometry, in pixels of these images.
        size: Side in pixels, a multiple of 16.
        photo_scale: How large the photographs are, against a scene of 224 px.
    """
    images = _backgrounds(draws[:, :BACKGROUND_DRAWS], recipe, size=size, photo_scale=photo_scale)
    rows, columns = len(draws) * recipe.digits, DIGIT_DRAWS  # a row per digit, scene after scene
    own = draws[:, BACKGROUND_DRAWS : recipe.painting_draws].reshape(rows, columns)
    at = placed.digits.flatten(), placed.cells.flatten()
    squares = _squares(*at, own[:, :8], recipe, size=size)
    hidden = _hidden(images, squares, recipe.lattice_px)
    colours = _ink_colours(hidden, own[:, 8:12], recipe)
    ink, most = _paint(images, squares, colours).max(1)
    classes = _digit_labels(draws.device)[placed.digits]
    counts = torch.zeros(len(draws), CLASSES, dtype=torch.int64, device=draws.device)
    return Scenes(
        images.mul_(255).round_().to(torch.uint8).contiguous(),
        placed.labels,
        ink,
        classes.gather(1, most.flatten(1)).view_as(most),
        counts.scatter_add(1, classes, torch.ones_like(classes)),
    )


def _backgrounds(u: Tensor, recipe: Recipe, *, size: int, photo_scale: float) -> Tensor:
    """Return photograph crops, or flat colours, float32 (count, 3, size, size)."""
    album = _album(photo_scale, recipe.photographs, u.device)
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


@dataclass(frozen=True)
class _Squares:
    """Squares of pixels around digits, scene after scene; all of one side, all in their scene.

    Attributes:
        ink: float32, (digits, side, side).
        first: int64, (digits, 2): the column and row of each square's first pixel.
        corners: int64, (digits, 2): where the digit's own square begins, which may be outside.
    """

    ink: Tensor
    first: Tensor
    corners: Tensor


def _squares(digits: Tensor, cells: Tensor, u: Tensor, recipe: Recipe, *, size: int) -> _Squares:
    """Return the ink of digits, whose scenes do not matter."""
    low, high = recipe.digit_px
    digit_px = low + (high - low) * u[:, 0]
    side = torch.ceil(digit_px * GLYPH_MARGIN)
    cell_px = size / recipe.cells
    at = torch.stack([cells % recipe.cells, cells // recipe.cells], 1) * cell_px
    margin = (side - digit_px)[:, None] / 2
    corners = torch.round(u[:, 5:7] * (cell_px - digit_px)[:, None] - margin + at)
    widest = min(size, math.ceil(high * GLYPH_MARGIN))
    first = corners.clamp(0, size - widest)
    along = torch.arange(widest, device=u.device) + (first - corners)[:, :, None]
    inside = (along >= 0) & (along < side[:, None, None])
    x, y = ((2 * along + 1) / side[:, None, None] - 1).float().unbind(1)
    grid = _transformed(x[:, None, :], y[:, :, None], u[:, 1:4], recipe)
    grey = F.grid_sample(_glyphs(u.device)[digits][:, None], grid, align_corners=False)[:, 0]
    threshold = recipe.weight[0] + (recipe.weight[1] - recipe.weight[0]) * u[:, 4]
    ink = grey.sub_(_each(threshold)).div_(recipe.softness).clamp_(0, 1)
    ink.mul_(inside[:, 1, :, None] & inside[:, 0, None, :])
    return _Squares(ink, first.long(), corners.long())


def _transformed(x: Tensor, y: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Turn, slant and stretch: return places in the glyph, (digits, side, side, 2)."""
    turn, shear, stretch = (2 * u - 1).unbind(1)
    angle = math.radians(recipe.rotation_degrees) * turn
    wide = 1 + recipe.stretch * stretch
    across = angle.cos() * wide, -wide * angle.sin() + recipe.shear * shear
    down = angle.sin() / wide, angle.cos() / wide
    return torch.stack([x * _each(a) + y * _each(b) for a, b in (across, down)], -1)


def _each(values: Tensor) -> Tensor:
    """Return a number per digit, float64 (digits,), as one to multiply its pixels by."""
    return values.float()[:, None, None]


def _hidden(images: Tensor, squares: _Squares, lattice_px: int) -> Tensor:
    """Return the darkest and lightest luminance under the ink but for outliers, (digits, 2)."""
    size, side, device = images.shape[-1], squares.ink.shape[-1], images.device
    steps = torch.arange(0, side, lattice_px, device=device)
    own = (squares.corners.clamp(min=0) - squares.first)[:, :, None] + steps
    within, own = own < side, own.clamp(max=side - 1)
    inked = squares.ink.flatten(1).gather(1, _crossed(own, side)) > 0
    inked &= (within[:, 1, :, None] & within[:, 0, None]).flatten(1)
    places = _crossed(own + squares.first[:, :, None], size).view(len(images), 1, -1)
    under = images.view(len(images), 3, -1).gather(2, places.expand(-1, 3, -1))
    luminance = torch.einsum("c,bcn->bn", _constant(LUMINANCE, device).float(), under)
    ordered = luminance.view_as(inked).masked_fill(~inked, _LAST).sort(1).values
    last = (inked.sum(1, keepdim=True) - 1).clamp(min=0)
    rank = last * _constant(EXTREMES, device).float()
    below, above = (ordered.gather(1, place.long()) for place in (rank.floor(), rank.ceil()))
    return torch.lerp(below, above, rank.frac())


def _crossed(places: Tensor, size: int) -> Tensor:
    """Return the pixels where columns and rows, (count, 2, n), cross: (count, n * n)."""
    columns, rows = places.unbind(1)
    return (rows[:, :, None] * size + columns[:, None]).flatten(1)


def _paint(images: Tensor, squares: _Squares, colours: Tensor) -> Tensor:
    """Paint the ink onto the images, a digit of each at a time, for digits may touch.

    Returns:
        The share of each patch that each digit covers, (count, digits, rows, columns).
    """
    count, _, size, _ = images.shape
    along = torch.arange(squares.ink.shape[-1], device=images.device)
    places = _crossed(squares.first[:, :, None] + along, size).view(count, -1, len(along) ** 2)
    inks, colours = squares.ink.view_as(places), colours.float().view(count, -1, 3, 1)
    pixels, shares = images.view(count, 3, -1), []
    for i in range(places.shape[1]):
        flat, ink = places[:, i, None].expand(-1, 3, -1), inks[:, i]
        inked = pixels.gather(2, flat).lerp_(colours[:, i], ink[:, None])
        pixels.scatter_(2, flat, inked)
        canvas = ink.new_zeros(count, size**2).scatter_(1, places[:, i], ink)
        shares.append(F.avg_pool2d(canvas.view(count, size, size), PATCH_PX))
    return torch.stack(shares, 1)


def _ink_colours(hidden: Tensor, u: Tensor, recipe: Recipe) -> Tensor:
    """Return colours, float64 (digits, 3), far enough in luminance from what the ink will hide."""
    darkest, lightest = hidden.double().unbind(1)
    lighter = 1 - lightest > darkest
    room = torch.where(lighter, 1 - lightest, darkest)
    contrast = room.clamp(max=recipe.contrast) + (room - recipe.contrast).clamp(min=0) * u[:, 3]
    target = torch.where(lighter, lightest + contrast, darkest - contrast)[:, None]
    luminance = _constant(LUMINANCE, u.device)[:, None]
    hue = u[:, :3]
    tinted = (hue * (target / (hue @ luminance + 1e-6))).clamp(0, 1)
    # Clipping a bright tint loses luminance; just enough white brings it back.
    left = tinted @ luminance
    white = (target - left).clamp(min=0) / (1 - left + 1e-6)
    return torch.lerp(tinted, torch.ones_like(tinted), white)


@cache
def _album(scale: float, count: int, device: torch.device) -> _Album:
    pages = photos(scale, count)
    shapes = torch.tensor([page.shape[1:] for page in pages], device=device)
    counts = shapes.prod(1)
    pixels = torch.cat([page.flatten(1) for page in pages], 1).to(device)
    return _Album(pixels, counts.cumsum(0) - counts, *shapes.unbind(1))


@cache
def _glyphs(device: torch.device) -> Tensor:
    return glyphs().to(device)


@cache
def _digit_labels(device: torch.device) -> Tensor:
    return digit_labels().to(device)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device, dtype=torch.float64)
