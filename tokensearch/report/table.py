"""A table before it is drawn: cells are text already, so console and page show the same."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table
from rich.text import Text

from tokensearch.report.text import NONE, plain

# What a spreadsheet would compute instead of showing it (OWASP, "CSV Injection").
FORMULA = ("=", "@", "+", "-")
FIGURE = re.compile(r"[+-][0-9.,]+( [a-z%]+)?( \[[-+0-9., ]+\](, p [=<] [0-9.]+)?)?")  # signed
MARK = "→ "  # before a row that stands out, where a console shows nothing bold


@dataclass(frozen=True, slots=True)
class ReportTable:
    """Rows of text under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    numbers: frozenset[str] = field(default_factory=frozenset)  # columns aligned to the right
    marked: frozenset[int] = field(default_factory=frozenset)  # rows that stand out


def table_to_rich(grid: ReportTable) -> Table:
    """Draw the grid for a console; marked rows are bold, with an arrow."""
    title = None if grid.title is None else Text(plain(grid.title))
    # With the line of the box that is two columns, so that a front fits in a pipe.
    gap = (0, 1, 0, 0)
    table = Table(
        box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=gap
    )
    for name in grid.columns:
        table.add_column(name, justify="right" if name in grid.numbers else "left")
    for index, (first, *rest) in enumerate(grid.rows):
        style = "bold" if index in grid.marked else None
        arrow = (MARK if index in grid.marked else " " * len(MARK)) if grid.marked else ""
        table.add_row(*(Text(plain(cell)) for cell in (f"{arrow}{first}", *rest)), style=style)
    return table


def table_to_markdown(grid: ReportTable) -> str:
    """Draw the grid for a page; marked rows are bold."""
    rules = ["---:" if name in grid.numbers else "---" for name in grid.columns]
    lines = [_line(grid.columns), _line(rules)]
    for index, row in enumerate(grid.rows):
        cells = [markdown_text(cell) for cell in row]
        bold = index in grid.marked
        lines.append(_line([f"**{cell}**" if bold and cell else cell for cell in cells]))
    return "\n".join(lines)


def table_to_csv(table: ReportTable) -> str:
    """Return the cells as the page shows them; a name that reads as a formula gets a quote.

    >>> print(table_to_csv(ReportTable(("a", "b"), [("=x", "+0.2 ms"), ("-2+3", "-")])), end="")
    a,b
    '=x,+0.2 ms
    '-2+3,-
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in (table.columns, *table.rows):
        writer.writerow([_harmless(plain(cell)) for cell in row])
    return written.getvalue()


def _harmless(cell: str) -> str:
    formula = cell.startswith(FORMULA) and not FIGURE.fullmatch(cell) and cell != NONE
    return f"'{cell}" if formula else cell


def markdown_text(words: str) -> str:
    r"""Return text that a page shows as it is: no cell ends, nothing is code, HTML or a link.

    >>> print(markdown_text("a|b <script> `x` [y](z)"))
    a\|b &lt;script> \`x\` [y]\(z)
    """
    return sentence(words).replace("|", "\\|")


def sentence(words: str) -> str:
    """Return a sentence of ours, in which a file's text may stand, for a page.

    Bars are ours there; code, HTML and links are not.
    """
    return plain(words).replace("<", "&lt;").replace("](", "]\\(").replace("`", "\\`")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
