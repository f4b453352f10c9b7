"""A ledger as a picture of its waterfall."""

from pathlib import Path

from tokensearch.ledger import Ledger
from tokensearch.report import text
from tokensearch.report.bars import Bar, Part, bars
from tokensearch.report.picture import FAINT, GREY, INK, page, save

# Okabe and Ito's palette, which colour-blind readers can tell apart (jfly.uni-koeln.de/color).
COLOURS: dict[Part, str] = {
    "pass": INK,
    "saved": "#0072b2",
    "spent": "#d55e00",
    "shifted": "#cc79a7",
    "noise": FAINT,
    "residual": GREY,
}
EDGE_IN, LINE_IN = 0.9, 0.32  # height of axis and margins, and of a bar
ROOM = 1.3  # of the longest bar, for the figures beside it


def draw_waterfall(ledger: Ledger, path: Path) -> None:
    """Draw how the baseline's pass becomes the candidate's, term by term, with intervals.

    PNG or SVG, by the suffix of `path`; the same bytes for the same ledger. RunError where it
    cannot be written.
    """
    lines = bars(ledger)
    figure, axes = page(height_in=EDGE_IN + LINE_IN * len(lines))
    reached_ms = []
    for row, bar in enumerate(lines):
        colour = COLOURS[bar.part]
        hatch = "////" if bar.part in {"noise", "residual"} else None
        axes.barh(
            row, bar.ms.value, left=bar.start_ms, color=colour, hatch=hatch, edgecolor="white", lw=0
        )
        ends = [bar.start_ms + end for end in (bar.ms.low, bar.ms.high)]
        axes.plot(ends, [row, row], color=INK, lw=1, marker="|", ms=5)
        reached_ms.append(max(bar.start_ms, bar.end_ms, *ends))
        beyond = (reached_ms[row], row)
        axes.annotate(f"  {_change_of(bar)}", beyond, va="center", color=INK, fontsize=8)
    axes.set_yticks(range(len(lines)), [bar.label for bar in lines])
    axes.invert_yaxis()
    axes.set_xlim(0, ROOM * max(reached_ms))
    axes.set_xlabel("a pass (ms); intervals hold for all terms at once at 95 %")
    axes.grid(visible=False, axis="y")
    save(figure, path)


def _change_of(bar: Bar) -> str:
    if bar.part == "pass":
        return text.ms(bar.ms.value)
    return text.signed_ms_interval(bar.ms)
