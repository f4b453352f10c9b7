"""A ledger for the terminal: the waterfall from baseline to candidate, and what each block does."""

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokensearch.ledger import Ledger
from tokensearch.report import text
from tokensearch.report.bars import Bar, Part, bars
from tokensearch.report.blocks import NOISE_MARK, block_table, paybacks
from tokensearch.report.grid import Grid, to_rich
from tokensearch.report.ledger_words import empty_sentence

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
    return Group(_bar_table(ledger), to_rich(block_table(ledger)), Text(legend(ledger)))


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


def term_table(ledger: Ledger) -> Grid:
    """The same lines as the waterfall, for a page."""
    rows = [_row(bar, ledger) for bar in bars(ledger)]
    return Grid(
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
        cells = (name, drawn(bar, longest_ms, BAR_COLUMNS), *figures)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def drawn(bar: Bar, longest_ms: float, width: int) -> str:
    """A bar in halves of `width` characters; never nothing.

    >>> from tokensearch.resampling import Estimate
    >>> drawn(Bar("saved", "", Estimate(-1, -2, 0), start_ms=3), longest_ms=4, width=6)
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
    mark = NOISE_MARK if bar.doubtful else ""
    change = text.signed_ms_interval(bar.ms)
    return bar.label, f"{mark}{change}", text.signed_percent(bar.ms.value / whole_ms)
