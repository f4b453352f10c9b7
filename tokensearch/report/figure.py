"""Pictures by matplotlib, without pyplot's global state: an empty page, and a file of it."""

from io import BytesIO
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tokensearch.errors import RunError
from tokensearch.files import write_whole, writing

WIDTH_IN, HEIGHT_IN, DPI = 8.0, 4.8, 150
INK, GREY, FAINT = "#222222", "#8a8a8a", "#c9c9c9"

# Metadata that matplotlib would fill in by itself, and differently every time.
DATELESS: dict[str, dict[str, None]] = {"png": {"Software": None}, "svg": {"Date": None}}


def figure_page(height_in: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of quiet axes."""
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#eeeeee")
    axes.set_axisbelow(True)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Write the picture whole, PNG or SVG by its suffix; the same bytes for the same figures.

    Raises:
        RunError: The suffix is another, or the picture cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in DATELESS:
        raise RunError(f"a picture ends in .png or .svg, not in {path.suffix!r}")
    drawn = BytesIO()
    with writing(path), rc_context({"svg.hashsalt": "tokensearch", "svg.fonttype": "none"}):
        figure.savefig(drawn, format=kind, metadata=DATELESS[kind])
    write_whole(path, drawn.getvalue())
