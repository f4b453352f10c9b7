"""Operators and kernels: what a profile has of them, and what became of them in another."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from tokensearch.operator_changes import OperatorChange
from tokensearch.profiles import Operator
from tokensearch.report import text
from tokensearch.report.grid import Grid

SHOWN = 20  # rows of a table: what is below is hardly ever worth a look
UNTESTED = "not testable: one step"
LONGEST = 48  # characters of a name; kernels of templates have hundreds


def change_table(changes: Sequence[OperatorChange]) -> Grid:
    """The largest changes, with what became of each; times are per pass or step."""
    rows = [
        (
            short(change.name),
            "kernel" if change.kernel else "operator",
            UNTESTED if change.change == "untested" else change.change,
            f"{text.count(round(change.baseline_calls))} → "
            f"{text.count(round(change.candidate_calls))}",
            text.ms(change.baseline_ms) if change.baseline_ms else text.NONE,
            text.ms(change.candidate_ms) if change.candidate_ms else text.NONE,
            _difference(change),
        )
        for change in changes[:SHOWN]
    ]
    columns = ("name", "kind", "change", "calls", "before", "after", "difference")
    return Grid(columns, rows, numbers=frozenset(columns[3:]))


def _difference(change: OperatorChange) -> str:
    """A change with its interval, which of a single pass says nothing."""
    said = text.signed_ms_interval(change.ms)
    return said.partition(" [")[0] if change.passes < 2 else said


def change_document(changes: Iterable[OperatorChange], names: Sequence[str]) -> dict[str, Any]:
    """The same for a program, complete."""
    return {
        "baseline": names[0],
        "candidate": names[1],
        "operators": [{**asdict(change), "change": change.change} for change in changes],
    }


def operator_table(operators: Iterable[Operator], *, whole_ms: float) -> Grid:
    """What took longest of a traced pass, over all blocks."""
    sums: dict[tuple[str, bool], tuple[float, float]] = {}
    for item in operators:
        calls, ms = sums.get((item.name, item.kernel), (0.0, 0.0))
        sums[item.name, item.kernel] = (calls + item.calls, ms + item.ms)
    longest = sorted(sums.items(), key=lambda entry: -entry[1][1])[:SHOWN]
    rows = [
        (
            short(name),
            "kernel" if kernel else "operator",
            text.count(round(often)),
            text.ms(ms),
            text.percent(ms / whole_ms),
        )
        for (name, kernel), (often, ms) in longest
    ]
    columns = ("name", "kind", "calls", "own time", "of a traced pass")
    return Grid(columns, rows, numbers=frozenset(columns[2:]))


def short(name: str) -> str:
    """A name that fits a table."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
