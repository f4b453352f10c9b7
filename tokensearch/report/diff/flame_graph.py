"""A differential flame graph of a ledger, as one SVG that needs no script.

Widths are the candidate's, on the baseline's scale; colours are changes; what only the baseline has
is hatched in a strip of its own, since in a graph of the candidate it would be invisible (Gregg,
"Differential flame graphs", 2014, names that blind spot).
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from tokensearch.diff.ledger import Ledger
from tokensearch.files import write_whole
from tokensearch.report import text
from tokensearch.report.diff.frames import Frame, removed, tree

WIDTH, ROW, FONT = 1200, 20, 11  # pixels
NARROWEST = 0.5  # pixels: what is narrower cannot be seen
LETTER = 0.6  # width of a letter as a share of its height, for sans-serif on average

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
FASTER, SLOWER, NEW, INSIDE_NOISE = (0, 114, 178), (213, 94, 0), (204, 121, 167), (214, 214, 214)
PALEST, DEEPEST = 0.25, 0.75  # how much of a colour a small and a large change have
LEGEND = (
    "width: candidate; blue faster, red slower, purple new, grey inside the noise; hatched: only "
    "in the baseline"
)
HATCH = (
    '<pattern id="gone" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="6" height="6" fill="#f4f4f4"/>'
    '<rect width="2" height="6" fill="#b0b0b0"/></pattern>'
)


def draw_flame(ledger: Ledger, path: Path) -> None:
    """Write the graph; RunError where it cannot be written."""
    write_whole(path, flame(ledger))


def flame(ledger: Ledger) -> str:
    """Return the graph as SVG, from the pass at the top down to operators; never two ways."""
    whole = tree(ledger)
    scale = WIDTH / max(whole.baseline_ms, whole.candidate_ms)
    before, after = ledger.baseline.name, ledger.candidate.name
    rows = [
        _words(0, f"{after} against {before}: {LEGEND}"),
        _outlined(1, f"{before}: {text.ms(whole.baseline_ms)}", scale * whole.baseline_ms),
        *_frames(whole, after, scale, row=2),
    ]
    bottom = 2 + _depth(whole)
    gone = list(_strip(whole, scale, bottom + 1))
    if gone:
        rows += [_words(bottom, f"only in {before}:"), *gone]
    height = ROW * (bottom + (2 if gone else 0))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="{FONT}">\n<defs>{HATCH}</defs>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


def _frames(frame: Frame, path: str, scale: float, *, row: int, left: float = 0.0) -> Iterator[str]:
    """Draw a frame that the candidate has, and its children side by side below it."""
    width = scale * frame.candidate_ms
    if width < NARROWEST:
        return
    name = path if row == 2 else frame.name
    tip, fill = _tip(frame, path), _colour(frame)
    yield _box(name, tip, left=left, row=row, width=width, fill=fill)
    for child in frame.children:
        yield from _frames(child, f"{path} > {child.name}", scale, row=row + 1, left=left)
        left += scale * child.candidate_ms


def _strip(whole: Frame, scale: float, row: int) -> Iterator[str]:
    left = 0.0
    for name, (ms, places) in removed(whole).items():
        width = scale * ms
        if width >= NARROWEST:
            tip = f"{name}: {text.ms(ms)} in {text.count(places, 'place')}, gone"
            yield _box(name, tip, left=left, row=row, width=width, fill="url(#gone)")
            left += width


def _depth(frame: Frame) -> int:
    return 1 + max((_depth(child) for child in frame.children), default=0)


def _tip(frame: Frame, path: str) -> str:
    change = f"{text.ms(frame.baseline_ms)} → {text.ms(frame.candidate_ms)}"
    if not frame.baseline_ms:
        return f"{path}: {change}, new"
    share = text.signed_percent(frame.change_ms / frame.baseline_ms)
    noise = "" if frame.significant else ", inside the noise"
    return f"{path}: {change}, {share}{noise}"


def _colour(frame: Frame) -> str:
    if not frame.baseline_ms:
        return _hex(NEW)
    if not frame.significant:
        return _hex(INSIDE_NOISE)
    depth = min(1.0, abs(frame.change_ms) / frame.baseline_ms)
    return _hex(FASTER if frame.change_ms < 0 else SLOWER, PALEST + (DEEPEST - PALEST) * depth)


def _hex(colour: tuple[int, int, int], strength: float = 1.0) -> str:
    """A colour on white.

    >>> _hex((0, 114, 178), 0.5)
    '#80b8d8'
    """
    return "#" + "".join(f"{round(255 - strength * (255 - one)):02x}" for one in colour)


def _box(name: str, tip: str, *, left: float, row: int, width: float, fill: str) -> str:
    top = ROW * row
    return (
        f'<g><title>{_escaped(tip)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" '
        f'height="{ROW - 1}" fill="{fill}" stroke="#ffffff" stroke-width="0.5"/>'
        f"{_label(left, top, width, name)}</g>"
    )


def _label(left: float, top: float, width: float, name: str) -> str:
    """As much of a name as there is room for: of a block its number before anything else."""
    room = int((width - 4) / (LETTER * FONT))
    shown = name if len(name) <= room else name.removeprefix("block ").removeprefix("aten::")
    if len(shown) > room:
        shown = f"{shown[: room - 1]}…" if room > 2 else ""
    if not shown:
        return ""
    return f'<text x="{left + 2:.1f}" y="{top + 14}" fill="#222222">{_escaped(shown)}</text>'


def _escaped(words: str) -> str:
    return escape(text.plain(words))


def _words(row: int, said: str) -> str:
    return f'<text x="3" y="{ROW * row + 14}" fill="#222222">{_escaped(said)}</text>'


def _outlined(row: int, said: str, width: float) -> str:
    box = f'<rect x="0.5" y="{ROW * row}.5" width="{width - 1:.1f}" height="{ROW - 2}" '
    return f'{box}fill="none" stroke="#222222"/>{_words(row, said)}'
