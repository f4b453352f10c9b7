"""A table before it is drawn: cells are text already, so console and page show the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows of text under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str | None = None
    numbers: frozenset[str] = field(default_factory=frozenset)  # columns aligned to the right
    marked: frozenset[int] = field(default_factory=frozenset)  # rows that stand out


def to_rich(grid: Grid) -> Table:
    """Draw the grid for a console."""
    table = Table(box=box.SIMPLE_HEAD, title=grid.title, title_justify="left", pad_edge=False)
    for name in grid.columns:
        table.add_column(name, justify="right" if name in grid.numbers else "left")
    for place, row in enumerate(grid.rows):
        style = "bold" if place in grid.marked else None
        table.add_row(*(Text(cell) for cell in row), style=style)
    return table


def to_markdown(grid: Grid) -> str:
    """Draw the grid for a page; marked rows are bold."""
    rules = ["---:" if name in grid.numbers else "---" for name in grid.columns]
    lines = [_line(grid.columns), _line(rules)]
    for place, row in enumerate(grid.rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        bold = place in grid.marked
        lines.append(_line([f"**{cell}**" if bold and cell else cell for cell in cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
