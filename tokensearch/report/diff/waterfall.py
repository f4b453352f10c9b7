"""The waterfall of a ledger: bars, console table and picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokensearch.diff.ledger import Kind, Ledger, Term
from tokensearch.report import text
from tokensearch.report.diff.blocks import NOISE_MARK, block_table, paybacks, sum_estimates
from tokensearch.report.diff.sentences import empty_sentence
from tokensearch.report.figure import FAINT, GREY, INK, figure_page, save_figure
from tokensearch.report.phases import PHASE_NAMES
from tokensearch.report.table import ReportTable, table_to_rich
from tokensearch.stats.interval import Interval

Part = Kind | Literal["pass", "noise"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a waterfall."""

    part: Part
    label: str
    ms: Interval  # the change; of a pass its whole time, without an interval
    start_ms: float  # where the bars above it have led to

    @property
    def end_ms(self) -> float:
        """Where it leads to."""
        return self.start_ms + self.ms.value

    @property
    def inside_noise(self) -> bool:
        """Whether it may be nothing at all."""
        return not self.ms.significant


def bars(ledger: Ledger) -> tuple[Bar, ...]:
    """Baseline, terms by phase (the largest first), noise, residual, candidate.

    Each bar starts where the last one ended, and the last change ends at the candidate's pass.
    """
    first = _pass(ledger.baseline.name, ledger.baseline_ms)
    made, reached_ms = [first], first.ms.value
    for part, label, ms in _changes(ledger):
        made.append(Bar(part, label, ms, reached_ms))
        reached_ms += ms.value
    return (*made, _pass(ledger.candidate.name, ledger.candidate_ms))


def _pass(name: str, ms: float) -> Bar:
    return Bar("pass", text.plain(name), Interval(ms, ms, ms), 0.0)


def _changes(ledger: Ledger) -> Iterator[tuple[Part, str, Interval]]:
    significant = [term for term in ledger.by_phase if term.ms.significant]
    for term in sorted(significant, key=lambda one: -abs(one.ms.value)):
        yield term.kind, label(term), term.ms
    rest = [term.ms for term in ledger.by_phase if not term.ms.significant]
    if rest:
        yield "noise", f"inside the noise ({text.count(len(rest), 'term')})", sum_estimates(rest)
    yield "residual", "residual", ledger.residual.ms


def label(term: Term) -> str:
    """Name a term of one phase: "saved in MLP", or "added in MLP" if the candidate has more."""
    assert term.phase is not None, "a term by phase has one"
    return f"{_verb(term)} {PHASE_NAMES[term.phase]}"


def _verb(term: Term) -> str:
    match term.kind:
        case "saved":
            return "added in" if term.ms.low > 0 else "saved in"
        case "spent":
            return "no longer spent on" if term.ms.high < 0 else "spent on"
        case _:
            return f"{term.kind} in"


BAR_COLUMNS = 24  # so that the whole line fits 100 columns

STYLES: dict[Part, str] = {
    "pass": "default",
    "saved": "blue",
    "spent": "yellow",
    "shifted": "magenta",
    "noise": "bright_black",
    "residual": "bright_black",
}


def waterfall(ledger: Ledger) -> RenderableType:
    """Return the ledger as a console shows it, in at most 100 columns; colour carries nothing.

    A ledger in which nothing is outside the noise is one sentence.
    """
    if ledger.empty:
        return Text(empty_sentence(ledger))
    return Group(_bar_table(ledger), table_to_rich(block_table(ledger)), Text(legend(ledger)))


def legend(ledger: Ledger) -> str:
    """What the marks of both tables mean."""
    speed = ", at one speed of the machine" if ledger.paired else ""
    noise = (
        f"Milliseconds, means of the middle half of the passes{speed}; candidate minus baseline. "
        "By block, saved is time that is gone: net = spent + shifted - saved. "
        f"{NOISE_MARK} inside the noise: the interval, which holds for all terms at once at 95 %, "
        "has 0 in it."
    )
    if not any(one.loses for one in paybacks(ledger)):
        return noise
    return (
        f"{noise} A cut does not pay where the block spends more on it than its tokens save, there "
        "and later."
    )


def term_table(ledger: Ledger) -> ReportTable:
    """The same lines as the waterfall, for a page."""
    rows = [_row(bar, ledger) for bar in bars(ledger)]
    return ReportTable(
        _COLUMNS, rows, numbers=frozenset(_COLUMNS[1:]), marked=frozenset({0, len(rows) - 1})
    )


_COLUMNS = ("", "time", "of baseline")


def _bar_table(ledger: Ledger) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("", width=BAR_COLUMNS)
    for name in _COLUMNS[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    lines = bars(ledger)
    longest_ms = max(max(bar.start_ms, bar.end_ms) for bar in lines)
    for bar in lines:
        style = STYLES[bar.part]
        name, *figures = _row(bar, ledger)
        cells = (name, draw_bar(bar, longest_ms, BAR_COLUMNS), *figures)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def draw_bar(bar: Bar, longest_ms: float, width: int) -> str:
    """A bar in halves of `width` characters; never nothing.

    >>> from tokensearch.stats.interval import Interval
    >>> draw_bar(Bar("saved", "", Interval(-1, -2, 0), start_ms=3), longest_ms=4, width=6)
    '   █▌ '
    """
    low, high = sorted((bar.start_ms, bar.end_ms))
    halves = [round(2 * width * max(0.0, end) / longest_ms) for end in (low, high)]
    start = min(halves[0], 2 * width - 1)
    filled = range(start, max(start + 1, halves[1]))
    cells = ((2 * cell in filled, 2 * cell + 1 in filled) for cell in range(width))
    return "".join(_HALVES[cell] for cell in cells)


_HALVES = {(True, True): "█", (True, False): "▌", (False, True): "▐", (False, False): " "}


def _row(bar: Bar, ledger: Ledger) -> tuple[str, str, str]:
    whole_ms = ledger.baseline_ms
    if bar.part == "pass":
        return bar.label, text.ms(bar.ms.value), text.percent(bar.ms.value / whole_ms)
    mark = NOISE_MARK if bar.inside_noise else ""
    change = text.signed_ms_interval(bar.ms)
    return bar.label, f"{mark}{change}", text.signed_percent(bar.ms.value / whole_ms)


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
    figure, axes = figure_page(height_in=EDGE_IN + LINE_IN * len(lines))
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
    save_figure(figure, path)


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
