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
ROOM = 1.3  # of what is drawn, for the figures beside it
WHISKERS = 1.15  # of the longest bar: beyond it they are cut, or noise would squash the bars


def draw_waterfall(ledger: Ledger, path: Path) -> None:
    """Draw how the baseline's pass becomes the candidate's, term by term, with intervals.

    PNG or SVG, by the suffix of `path`; the same bytes for the same ledger. RunError where it
    cannot be written.
    """
    lines = bars(ledger)
    figure, axes = page(height_in=EDGE_IN + LINE_IN * len(lines))
    most_ms = WHISKERS * max(max(bar.start_ms, bar.end_ms) for bar in lines)
    reached_ms = []
    for row, bar in enumerate(lines):
        colour = COLOURS[bar.part]
        hatch = "////" if bar.part in {"noise", "residual"} else None
        axes.barh(
            row, bar.ms.value, left=bar.start_ms, color=colour, hatch=hatch, edgecolor="white", lw=0
        )
        ends = [whisker_end(bar.start_ms + end, most_ms) for end in (bar.ms.low, bar.ms.high)]
        axes.plot([at_ms for at_ms, _ in ends], [row, row], color=INK, lw=1)
        for at_ms, mark in ends:
            axes.plot(at_ms, row, color=INK, marker=mark, ms=5, clip_on=False)
        reached_ms.append(max(bar.start_ms, bar.end_ms, ends[1][0]))
        beyond = (reached_ms[row], row)
        axes.annotate(f"  {_change_of(bar)}", beyond, va="center", color=INK, fontsize=8)
    labels = [bar.label for bar in lines]
    axes.set_yticks(range(len(lines)), labels, parse_math=False)  # a name may hold dollars
    axes.invert_yaxis()
    axes.set_xlim(0, ROOM * max(reached_ms))
    axes.set_xlabel("a pass (ms); intervals hold for all terms at once at 95 %, arrows go on")
    axes.grid(visible=False, axis="y")
    save(figure, path)


def whisker_end(end_ms: float, most_ms: float) -> tuple[float, str]:
    """Where an interval ends in the picture, and its mark: an arrow where it goes on beyond.

    >>> [whisker_end(end_ms, most_ms=30) for end_ms in (-5, 20, 90)]
    [(0, '<'), (20, '|'), (30, '>')]
    """
    mark = "<" if end_ms < 0 else ">" if end_ms > most_ms else "|"
    return min(max(end_ms, 0), most_ms), mark


def _change_of(bar: Bar) -> str:
    if bar.part == "pass":
        return text.ms(bar.ms.value)
    return text.signed_ms_interval(bar.ms)
