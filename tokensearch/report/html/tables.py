"""The tables that only the page has, and how it hands out all of its tables: as CSV."""

import hashlib
from typing import NamedTuple

from tokensearch.records.measurements import Latency
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import name_finalist
from tokensearch.report.table import ReportTable

TAILS = (95, 99)  # percentiles of passes


class PageTable(NamedTuple):
    """A table with the name of its CSV."""

    key: str
    title: str
    table: ReportTable


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
