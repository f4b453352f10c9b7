"""A picture of what is left of images: block by block, which patches were dropped, merged or kept.

Every tile is the image behind one block that changed something. Patches that share a token are
filled with their mean colour and outlined in one colour, as in ToMe's own pictures
(arXiv:2210.09461, figure 4); what is gone is dark, and what went in this block is marked.
"""

import colorsys
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tokensearch.errors import RunError
from tokensearch.files import write_whole, writing
from tokensearch.policy import Policy
from tokensearch.records.patch_trace import DISCARDED, PatchTrace, TracedImage
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import name_finalist
from tokensearch.report.run.tables import step_name
from tokensearch.report.table import ReportTable

KINDS = {".png": "PNG", ".webp": "WEBP", ".jpg": "JPEG", ".jpeg": "JPEG"}
TILE_PX = 196  # longer side of a tile
LEAST_PX = 6  # a side of a patch, so that outlines can be seen
ACROSS = 6  # tiles in a line
MOST_SIDE = 4096  # pixels of an image that is read back
MARGIN, GAP, LINE_PX = 18, 12, 17
LEGEND_PX, LEGEND_HEIGHT = 640, 84
TITLE_PX, CAPTION_LINES = 30, 4
MOST_PX = 16_000  # a side of a picture; WebP ends at 16,383

INK, MUTED, GROUND = "#1b2330", "#566071", "#ffffff"
GONE, GOING = (72, 78, 92), (213, 60, 20)  # discarded before, and in this block
QUALITY = 82

Pixels = NDArray[np.uint8]


class PolicyRow(NamedTuple):
    """One policy, and the same images under it."""

    name: str
    policy: Policy
    images: Sequence[TracedImage]


class _Tile(NamedTuple):
    picture: Image.Image
    caption: tuple[str, ...]  # the first is the heading


def draw_patches(rows: Sequence[PolicyRow]) -> Image.Image:
    """Draw images under one or several policies, which have the same images in the same order.

    Several policies have the same block under one another.

    Raises:
        RunError: The picture would be too large to be written.
    """
    panels = list(_panels(rows))
    step = max(_caption_width(), *(tile.picture.width for _, line in panels for tile in line)) + GAP
    wide = max(LEGEND_PX, max(len(line) for _, line in panels) * step - GAP) + 2 * MARGIN
    high = 2 * MARGIN + LEGEND_HEIGHT + sum(_panel_height(line) for _, line in panels)
    if max(wide, high) > MOST_PX:
        raise RunError(
            f"the picture would have {wide} x {high} pixels, over {MOST_PX:,} a side; give fewer "
            f"images"
        )
    page = Image.new("RGB", (wide, high), GROUND)
    _draw_legend(page, MARGIN)
    top = MARGIN + LEGEND_HEIGHT
    for title, line in panels:
        _draw_panel(page, top, title, [*zip(count(MARGIN, step), line, strict=False)])
        top += _panel_height(line)
    return page


def draw_answer_patches(run: RunDocument, images: Sequence[TracedImage]) -> Image.Image:
    """Draw images of a run under its answer."""
    answer = run.finished.answer
    assert answer is not None  # whose images these are
    return draw_patches([PolicyRow(name_finalist(answer), answer.policy, images)])


def encode_patches(picture: Image.Image, kind: str) -> bytes:
    """Return a picture as PNG, WEBP or JPEG."""
    encoded = BytesIO()
    picture.save(encoded, kind, **({} if kind == "PNG" else {"quality": QUALITY}))
    return encoded.getvalue()


def save_patches(picture: Image.Image, path: Path) -> None:
    """Write a picture whole; RunError where its name is no picture's, or it cannot be written."""
    check_picture(path)
    with writing(path):
        data = encode_patches(picture, KINDS[path.suffix.lower()])
    write_whole(path, data)


def check_picture(path: Path) -> None:
    """Refuse a name that is no picture's: RunError."""
    if path.suffix.lower() not in KINDS:
        raise RunError(f"picture {path} must end in {', '.join(KINDS)}")


def patch_table(images: Sequence[TracedImage]) -> ReportTable:
    """Return the numbers of the picture: what each block did to the tokens of each image."""
    figures = ("block", "tokens left", "dropped", "merged into others", "largest, patches")
    rows = [
        (
            text.plain(image.name),
            str(change.block),
            text.count(change.left),
            text.count(change.dropped),
            text.count(change.merged),
            text.count(max(image.trace.sizes(change.block).values())),
        )
        for image in images
        for change in image.trace.changes
    ]
    return ReportTable(("image", *figures), rows, numbers=frozenset(figures))


def describe_patches(image: TracedImage) -> str:
    """Say in one sentence what became of an image's patches, for whoever cannot see it."""
    patches = len(image.trace.tokens[0])
    changes = image.trace.changes
    if not changes:
        return f"{text.plain(image.name)}: all {text.count(patches)} patches are kept to the end"
    last = changes[-1]
    held = sum(image.trace.sizes(last.block).values())
    return (
        f"{text.plain(image.name)}: behind block {last.block}, {text.count(last.left, 'token')} "
        f"hold {text.count(held)} of {text.count(patches)} patches; the others were dropped"
        if held < patches
        else f"{text.plain(image.name)}: behind block {last.block}, "
        f"{text.count(last.left, 'token')} hold all {text.count(patches)} patches"
    )


def _panels(rows: Sequence[PolicyRow]) -> Iterator[tuple[str, list[_Tile]]]:
    """Yield lines of tiles, each with its title: images in turn, and policies within an image."""
    for index, image in enumerate(rows[0].images):
        traces = [row.images[index].trace for row in rows]
        blocks = sorted({change.block for trace in traces for change in trace.changes})
        seen = _open(image)
        lines = -(-(1 + len(blocks)) // ACROSS)
        long = -(-(1 + len(blocks)) // lines)
        for start in range(0, 1 + len(blocks), long):
            for row, trace in zip(rows, traces, strict=True):
                title = f"{row.name}: {image.name}{', continued' if start else ''}"
                tiles = [] if start else [_input_tile(seen, trace)]
                shown = blocks[max(0, start - 1) : start + long - 1]
                yield title, [*tiles, *_tiles(seen, trace, row.policy, shown)]


def _open(image: TracedImage) -> Image.Image:
    """Decode an image of a trace; RunError where it is none, or larger than any model's input."""
    try:
        seen = Image.open(BytesIO(image.jpeg), formats=["JPEG"])
        if max(seen.size) > MOST_SIDE:
            raise RunError(f"image {image.name!r:.60} has {seen.width} x {seen.height} pixels")
        return seen.convert("RGB")
    except OSError as error:
        raise RunError(f"image {image.name!r:.60} is no JPEG") from error


def _input_tile(seen: Image.Image, trace: PatchTrace) -> _Tile:
    return _Tile(_resized(seen, trace), ("input", f"{trace.columns} x {trace.rows} patches"))


def _tiles(
    seen: Image.Image, trace: PatchTrace, policy: Policy, blocks: Sequence[int]
) -> Iterator[_Tile]:
    pixels = np.asarray(_resized(seen, trace))
    for block in blocks:
        change = trace.change(block)
        done = " then ".join(step_name(step) for step in policy.steps_of(block)) or "keep"
        parts = [
            f"{text.count(number)} {what}"
            for number, what in ((change.dropped, "dropped"), (change.merged, "merged"))
            if number
        ]
        lines = (
            f"block {block}",
            done,
            f"{change.left} of {len(trace.tokens[0])} left",
            ", ".join(parts) or "as before",
        )
        yield _Tile(_paint(pixels, trace, block), lines)


def _resized(seen: Image.Image, trace: PatchTrace) -> Image.Image:
    """Return an image in whole pixels a patch."""
    high, wide = _patch_px(seen, trace)
    return seen.resize((wide * trace.columns, high * trace.rows), Image.Resampling.LANCZOS)


def _patch_px(seen: Image.Image, trace: PatchTrace) -> tuple[int, int]:
    """Rows and columns of pixels that a patch takes in a tile."""
    scale = TILE_PX / max(seen.size)
    high, wide = seen.height * scale / trace.rows, seen.width * scale / trace.columns
    return max(LEAST_PX, round(high)), max(LEAST_PX, round(wide))


def _paint(pixels: Pixels, trace: PatchTrace, block: int) -> Image.Image:
    """Return the image as it is behind a block."""
    rows, columns = trace.rows, trace.columns
    high, wide = pixels.shape[0] // rows, pixels.shape[1] // columns
    tokens, before = (
        np.array(held).reshape(rows, columns) for held in (trace.tokens[block], trace.before(block))
    )
    sizes = trace.sizes(block)
    grid = pixels.reshape(rows, high, columns, wide, 3).transpose(0, 2, 1, 3, 4).astype(float)
    for token, size in sizes.items():
        if size > 1:
            members = tokens == token
            grid[members] = grid[members].mean(axis=(0, 1, 2))
    gone, going = before == DISCARDED, (tokens == DISCARDED) & (before != DISCARDED)
    grid[gone] = GONE
    grid[going] = 0.35 * grid[going] + 0.65 * np.array(GOING)
    flat = grid.transpose(0, 2, 1, 3, 4).reshape(pixels.shape).round().astype(np.uint8)
    picture = Image.fromarray(flat)
    _strike(picture, going, (high, wide))
    shared = {token for token, size in sizes.items() if size > 1}
    _outline(picture, tokens, shared, (high, wide))
    return picture


def _strike(picture: Image.Image, going: NDArray[np.bool_], patch: tuple[int, int]) -> None:
    """Draw a line through each patch that goes, which colour alone does not show in any image."""
    draw, (high, wide) = ImageDraw.Draw(picture), patch
    for row, column in np.argwhere(going):
        y, x = int(row) * high, int(column) * wide
        draw.line((x + 2, y + high - 3, x + wide - 3, y + 2), fill=GROUND)


def _outline(
    picture: Image.Image, tokens: NDArray[np.int64], shared: set[int], patch: tuple[int, int]
) -> None:
    """Draw a line around the patches of each token that holds several."""
    draw, (high, wide) = ImageDraw.Draw(picture), patch
    framed = np.pad(tokens, 1, constant_values=-2)
    colours = {token: _colour(int(np.argmax(tokens == token))) for token in shared}
    thick = 2 if min(patch) >= 10 else 1
    for row, column in np.argwhere(np.isin(tokens, list(shared))):
        token, (y, x) = int(tokens[row, column]), (int(row) * high, int(column) * wide)
        bottom, right = y + high - 1, x + wide - 1
        sides = (
            (framed[row, column + 1], (x, y, right, y + thick - 1)),
            (framed[row + 2, column + 1], (x, bottom - thick + 1, right, bottom)),
            (framed[row + 1, column], (x, y, x + thick - 1, bottom)),
            (framed[row + 1, column + 2], (right - thick + 1, y, right, bottom)),
        )
        for neighbour, box in sides:
            if neighbour != token:
                draw.rectangle(box, fill=colours[token])


def _colour(first: int) -> tuple[int, int, int]:
    """Return the colour of a token by its first patch, far from those of its neighbours."""
    hue = first * 0.618034 % 1.0  # the golden ratio spreads hues evenly
    light = 0.5 if first % 2 else 0.68
    red, green, blue = colorsys.hls_to_rgb(hue, light, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def _font(size: int = 13, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return matplotlib's own font, which is there wherever this is installed."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def _caption_width() -> int:
    """Return the room that the longest usual step takes under a tile."""
    return round(_font().getlength("prune or pool to 196"))


def _panel_height(line: Sequence[_Tile]) -> int:
    return TITLE_PX + max(tile.picture.height for tile in line) + CAPTION_LINES * LINE_PX + GAP * 2


def _draw_panel(page: Image.Image, top: int, title: str, line: Sequence[tuple[int, _Tile]]) -> None:
    """Draw a title and tiles, each with the column of pixels where it begins."""
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, top), text.plain(title), fill=INK, font=_font(16, bold=True))
    for left, tile in line:
        y = top + TITLE_PX
        page.paste(tile.picture, (left, y))
        y += tile.picture.height + 4
        room = max(_caption_width(), tile.picture.width)
        for number, words in enumerate(tile.caption):
            font = _font(bold=number == 0)
            draw.text((left, y), _cut(words, font, room), MUTED if number else INK, font)
            y += LINE_PX


def _cut(words: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Return words as far as there is room for them."""
    if font.getlength(words) <= room:
        return words
    while words and font.getlength(f"{words}…") > room:
        words = words[:-1]
    return f"{words}…"


def _draw_legend(page: Image.Image, top: int) -> None:
    """Draw what the tiles mean, a swatch and words for each."""
    draw, side = ImageDraw.Draw(page), 18
    entries: tuple[tuple[str, tuple[int, ...], tuple[int, int, int] | None], ...] = (
        ("kept: the patch is a token of its own", (169, 196, 221), None),
        ("merged: patches in one outline are one token", (201, 180, 140), _colour(4)),
        ("dropped in this block", GOING, None),
        ("dropped before", GONE, None),
    )
    for number, (words, fill, outline) in enumerate(entries):
        left, y = MARGIN + number % 2 * 300, top + number // 2 * (side + 6)
        width = 3 if outline else 0
        draw.rectangle((left, y, left + side, y + side), fill, outline, width)
        if fill == GOING:
            draw.line((left + 3, y + side - 3, left + side - 3, y + 3), fill=GROUND)
        draw.text((left + side + 7, y + 1), words, MUTED, _font())
    note = "Blocks that change nothing are left out. Counts below the pictures are of tokens."
    draw.text((MARGIN, top + 2 * (side + 6)), note, MUTED, _font())
