"""The staircase of the run's machine as a chart: what a block costs by its tokens."""

from tokensearch.costs import CostTable, Staircase
from tokensearch.report import text
from tokensearch.report.html.chart import Chart, Mark, horizontal, path_of, steps_of, vertical
from tokensearch.report.table import ReportTable


def staircase_chart(table: CostTable, stairs: Staircase) -> Chart:
    """Draw what was measured with its standard errors, the staircase, and where to stop."""
    images = text.count(table.cell.batch, "image")
    x = horizontal("patch tokens in the block", 0, stairs.counts[-1])
    y = vertical(f"one block, {images} (ms)", 0, 1.08 * max(stairs.measured_ms))
    measured = tuple(
        Mark(
            kind="good" if count in stairs.good_counts else "step",
            x=x.at(count),
            y=y.at(ms),
            tip=f"{text.count(count, 'patch token')}: {text.ms(ms)}, off by {text.ms(off)}",
            along=(y.at(ms - off), y.at(ms + off)),
        )
        for count, ms, off in zip(stairs.counts, stairs.measured_ms, stairs.error_ms, strict=True)
    )
    corners = [(x.at(count), y.at(ms)) for count, ms in zip(stairs.counts, stairs.ms, strict=True)]
    title = "what a block costs by its patch tokens"
    return Chart("staircase", title, x, y, measured, path_of([*steps_of(corners)]))


def staircase_table(stairs: Staircase) -> ReportTable:
    """Return the numbers of the chart."""
    columns = (
        "patch tokens",
        "measured (ms)",
        "off by (ms)",
        "staircase (ms)",
        "worth stopping at",
    )
    rows = [
        (
            str(count),
            f"{ms:.4f}",
            f"{off:.4f}",
            f"{fit:.4f}",
            "yes" if count in stairs.good_counts else "",
        )
        for count, ms, off, fit in zip(
            stairs.counts, stairs.measured_ms, stairs.error_ms, stairs.ms, strict=True
        )
    ]
    return ReportTable(columns, rows, numbers=frozenset(columns[:4]))
