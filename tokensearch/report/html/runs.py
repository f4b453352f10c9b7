"""The page of several runs of one model: cells side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokensearch.errors import RunError
from tokensearch.files import make_folder, refuse_link, write_whole
from tokensearch.records.run_folder import RunFolder
from tokensearch.report import text
from tokensearch.report.cells import (
    CellRun,
    cell_names,
    doubt_sentences,
    read_cells,
    shared_table,
    ship_table,
    verdict_sentences,
)
from tokensearch.report.html.page import TABLES, make_environment, package_version
from tokensearch.report.html.tables import PageTable
from tokensearch.report.run.result import name_finalist
from tokensearch.report.run.tables import model_line
from tokensearch.report.table import table_to_csv

PAGE = "report.html"


class CellBar(NamedTuple):
    """The latency of one answer, in percent of the widest bar."""

    answer: str
    width: float
    low: float
    reach: float
    figure: str


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Everything that the template shows."""

    title: str
    model: str
    version: str
    sentences: tuple[str, ...]
    names: tuple[str, ...]
    bars: tuple[CellBar, ...]
    tables: dict[str, PageTable]
    cautions: tuple[str, ...]


def write_runs(folders: Sequence[Path], to: Path) -> tuple[Path, tuple[str, ...]]:
    """Write the page of several runs and its tables; return the page, and its first sentences.

    Raises:
        RunError: See `read_cells`; or the page cannot be written, or would replace that of a run.
    """
    if RunFolder(to).run.exists():
        raise RunError(f"folder {to} of --out holds a run, with a page of its own; name another")
    page = make_runs_page(read_cells(folders))
    tables = make_folder(to) / TABLES
    refuse_link(tables)
    make_folder(tables)
    for shown in page.tables.values():
        write_whole(tables / f"{shown.key}.csv", table_to_csv(shown.table))
    template = make_environment().get_template("runs.html.j2")
    write_whole(to / PAGE, template.render(page=page, folder=TABLES))
    return to / PAGE, page.sentences


def make_runs_page(cells: Sequence[CellRun]) -> RunsPage:
    """Put together what the page shows."""
    tables = (
        PageTable("ship", "What to ship in each cell", ship_table(cells)),
        PageTable("shared", "One policy for all cells", shared_table(cells)),
    )
    run = cells[0].run
    return RunsPage(
        title=f"{text.plain(run.model.name)} in {text.count(len(cells), 'cell')}",
        model=model_line(run.model),
        version=package_version(),
        sentences=verdict_sentences(cells),
        names=cell_names(cells),
        bars=_bars(cells),
        tables={shown.key: shown for shown in tables},
        cautions=doubt_sentences(cells),
    )


def _bars(cells: Sequence[CellRun]) -> tuple[CellBar, ...]:
    ratios = [cell.answer.comparison.interval for cell in cells]
    most = max(1.0, *(ratio.high for ratio in ratios))
    return tuple(
        CellBar(
            answer=name_finalist(cell.answer),
            width=round(100 * ratio.value / most, 2),
            low=round(100 * max(0.0, ratio.low) / most, 2),
            reach=round(100 * (ratio.high - max(0.0, ratio.low)) / most, 2),
            figure=text.ratio_interval(ratio),
        )
        for cell, ratio in zip(cells, ratios, strict=True)
    )
