"""The tables that only the page has, and how it hands out all of its tables: as CSV."""

import csv
import hashlib
import io
from typing import NamedTuple

from tokensearch.records.measurements import Latency
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import name_finalist
from tokensearch.report.table import ReportTable

# What a spreadsheet would compute instead of showing it (OWASP, "CSV Injection").
FORMULA = ("=", "@", "+", "-")
TAILS = (95, 99)  # percentiles of passes


class PageTable(NamedTuple):
    """A table with the name of its CSV."""

    key: str
    title: str
    table: ReportTable


def table_to_csv(table: ReportTable) -> str:
    """Return the cells as the page shows them; a name that reads as a formula gets a quote.

    >>> print(table_to_csv(ReportTable(("a", "b"), [("=x", "+0.2 ms"), ("1,2", "-")])), end="")
    a,b
    '=x,+0.2 ms
    "1,2",-
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for row in (table.columns, *table.rows):
        writer.writerow([_harmless(text.plain(cell)) for cell in row])
    return written.getvalue()


def _harmless(cell: str) -> str:
    signed = cell[:1] in {"+", "-"} and cell[1:2].isdecimal()
    formula = cell.startswith(FORMULA) and not signed and cell != text.NONE
    return f"'{cell}" if formula else cell


def tail_table(run: RunDocument) -> ReportTable:
    """Return throughput and slow passes of every finalist, with its baseline's median."""
    batch = run.cell.batch
    rows = [
        (
            name_finalist(finalist),
            text.ms(finalist.comparison.candidate.median_ms),
            *_tails(finalist.comparison.candidate),
            text.count(len(finalist.comparison.candidate.passes_ms)),
            text.rate(batch, finalist.comparison.candidate.median_ms),
            text.rate(batch, finalist.comparison.baseline.median_ms),
        )
        for finalist in run.finished.finalists
    ]
    figures = ("median", *(f"p{tail}" for tail in TAILS), "passes", "throughput", "of its baseline")
    return ReportTable(("finalist", *figures), rows, numbers=frozenset(figures))


def _tails(latency: Latency) -> tuple[str, ...]:
    tails = (latency.percentile_ms(tail) for tail in TAILS)
    return tuple(text.NONE if tail is None else text.ms(tail) for tail in tails)


def hash_table(folder: RunFolder) -> ReportTable:
    """Return size and digest of every file that the page is made of, and of the answer."""
    records = (folder.run, folder.front, folder.policy, folder.costs, folder.trials)
    files = [*records, *sorted(folder.profiles.glob("*.json"))]
    rows = [
        (
            path.relative_to(folder.path).as_posix(),
            text.count(path.stat().st_size),
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in files
        if path.is_file()
    ]
    return ReportTable(("file", "bytes", "SHA-256"), rows, numbers=frozenset({"bytes"}))
