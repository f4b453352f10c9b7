"""The staircase of a machine, as a picture and for a console: what a block costs by its tokens."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from tokensearch.costs import CostTable, Staircase, Tread, fit_staircase
from tokensearch.report import text
from tokensearch.report.figure import FAINT, INK, figure_page, save_figure
from tokensearch.report.table import ReportTable, table_to_rich

STAIR, GOOD = "#0072b2", "#d55e00"  # Okabe and Ito's palette, as in the other pictures
COLUMNS = 64  # of the sparkline: narrow enough for any terminal
ROWS = 8  # most treads and prices of a table
MOST_NAMED = 6  # counts with a name in the picture; more would overlap


def draw_staircase(table: CostTable, path: Path) -> None:
    """Draw what a block costs at every token count, and the counts worth stopping at.

    Raises:
        RunError: The suffix is neither .png nor .svg, or the picture cannot be written.
    """
    stairs = fit_staircase(table)
    figure, axes = figure_page()
    axes.errorbar(
        stairs.counts,
        stairs.measured_ms,
        yerr=stairs.error_ms,
        fmt=".",
        color=FAINT,
        markersize=4,
        elinewidth=0.8,
        label="measured, with standard errors",
        zorder=1,
    )
    axes.step(stairs.counts, stairs.ms, where="mid", color=STAIR, lw=1.6, label="staircase")
    good = [(count, stairs.ms[stairs.counts.index(count)]) for count in stairs.good_counts]
    for count, ms in good:
        axes.plot(count, ms, "o", color=GOOD, markersize=5, zorder=3)
    axes.plot([], [], "o", color=GOOD, markersize=5, label="worth stopping at")
    for count, ms in good[-MOST_NAMED:]:
        axes.annotate(
            str(count),
            (count, ms),
            xytext=(0, 8),
            textcoords="offset points",
            color=INK,
            ha="right",
        )
    axes.set_xlabel("patch tokens in the block")
    axes.set_ylabel(f"one block, {text.count(table.cell.batch, 'image')} (ms)")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    save_figure(figure, path)


def staircase_text(table: CostTable) -> RenderableType:
    """Show the staircase, the widest treads and the operators' prices on a console."""
    stairs = fit_staircase(table)
    calibration = table.calibration
    head = (
        f"{table.model.name}, batch {table.cell.batch}: baseline {text.ms(table.baseline_ms)}; "
        f"{table.passes} passes in {text.duration(table.seconds)}; on {len(calibration.trials) - 1}"
        f" schedules kept apart predictions were off by {text.percent(calibration.error)} on "
        f"average, {text.percent(calibration.worst)} at worst"
    )
    return Group(
        Text(head),
        Text(f"\n{sparkline(stairs)}\n1 {'patch tokens':^{COLUMNS - 6}} {stairs.counts[-1]}\n"),
        Text("\n".join(_words(stairs))),
        table_to_rich(_treads(stairs)),
        table_to_rich(_prices(table)),
    )


def sparkline(stairs: Staircase) -> str:
    """Costs of a block from few tokens to all, as one row of bars."""
    last = len(stairs.ms) - 1
    places = [round(column * last / (COLUMNS - 1)) for column in range(COLUMNS)]
    highest = stairs.ms[-1]
    heights = [round(stairs.ms[place] / highest * (len(text.BARS) - 1)) for place in places]
    return "".join(text.BARS[height] for height in heights)


def _words(stairs: Staircase) -> Sequence[str]:
    if stairs.sentences:
        return stairs.sentences[:ROWS]
    return ("no step beyond the noise: every token fewer saves its share",)


def _treads(stairs: Staircase) -> ReportTable:
    good = [one for one in stairs.treads if one.last in stairs.good_counts]
    return ReportTable(
        columns=("patch tokens", "one block", "off by", "step up"),
        rows=[_tread(one) for one in good[-ROWS:]],
        title="counts worth stopping at: the last of each row",
        numbers=frozenset({"patch tokens", "one block", "off by", "step up"}),
    )


def _tread(tread: Tread) -> tuple[str, ...]:
    counts = f"{tread.first} to {tread.last}" if tread.first < tread.last else str(tread.last)
    step = text.ms(tread.step_ms) if tread.step_ms else text.NONE
    return counts, text.ms(tread.ms), text.ms(tread.error_ms), step


def _prices(table: CostTable) -> ReportTable:
    """What each operator costs where all tokens enter and three quarters stay."""
    count = table.model.patch_tokens
    rows = [
        (price.name, text.ms(table.calibration.scale * price.of(count, 3 * count // 4)))
        for price in table.prices
        if price.name in table.operators
    ]
    return ReportTable(
        columns=("score or operator", "price"),
        rows=rows,
        title=f"at {count} patch tokens, of which {3 * count // 4} stay",
        numbers=frozenset({"price"}),
    )
