"""Pictures by matplotlib, without pyplot's global state: an empty page, and a file of it."""

import os
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokensearch.errors import RunError

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 4.8, 150
INK, GREY, FAINT = "#222222", "#8a8a8a", "#c9c9c9"

# Metadata that matplotlib would fill in by itself, and differently every time.
DATELESS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}


def page(height_in: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of quiet axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write the picture whole, PNG or SVG by its suffix; the same bytes for the same figures.

    Raises:
        RunError: The suffix is another, or the picture cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in DATELESS:
        raise RunError(f"a picture ends in .png or .svg, not in {path.suffix!r}")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with rc_context({"svg.hashsalt": "tokensearch", "svg.fonttype": "none"}):
                figure.savefig(part, format=kind, metadata=DATELESS[kind])
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # taking the part away fails where its folder is none
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
