"""Schedules as strips of blocks, and a ledger as a waterfall: shares of a width or height."""

from collections.abc import Iterable
from typing import NamedTuple

from tokensearch.diff.ledger import Ledger
from tokensearch.policy import Policy
from tokensearch.report import text
from tokensearch.report.diff.waterfall import WHISKERS, Part, bars, term_table, whisker_end
from tokensearch.report.run.tables import schedule_line, schedule_table
from tokensearch.report.table import ReportTable


class BlockBar(NamedTuple):
    """One block of a strip."""

    block: int
    tokens: int
    height: float  # percent of all patch tokens
    step: str  # what happens to them, in words; empty where all are kept
    by: str
    kind: str  # the operator, for its colour


class Strip(NamedTuple):
    """The schedule of a policy."""

    name: str
    answer: bool
    line: str  # what holds for the whole of it
    blocks: tuple[BlockBar, ...]


def make_strip(policy: Policy, name: str, *, answer: bool) -> Strip:
    """Lay out what every block does with its tokens."""
    rows = schedule_table(policy).rows
    blocks = tuple(_block_bar(block, row, policy) for block, row in enumerate(rows))
    return Strip(name, answer, schedule_line(policy), blocks)


def _block_bar(block: int, row: Iterable[str], policy: Policy) -> BlockBar:
    _, step, by, *_ = row
    steps, tokens = policy.steps_of(block), policy.patch_tokens_after_block[block]
    height = 100 * tokens / policy.model.patch_tokens
    kind = steps[-1].op if steps else "keep"
    return BlockBar(block, tokens, round(height, 1), "" if step == "keep" else step, by, kind)


class FallBar(NamedTuple):
    """One line of a waterfall; lengths in percent of the widest."""

    part: Part
    label: str
    figure: str
    left: float
    width: float
    whisker: tuple[float, float] | None  # ends of the interval
    ends: tuple[str, str]  # marks at them: "|", or an arrow where it goes on beyond


def make_fall(ledger: Ledger) -> tuple[FallBar, ...]:
    """Lay out how the baseline's pass becomes the answer's."""
    lines = bars(ledger)
    most_ms = WHISKERS * max(max(bar.start_ms, bar.end_ms) for bar in lines)
    made = []
    for bar, (label, figure, _) in zip(lines, term_table(ledger).rows, strict=True):
        low, high = sorted((bar.start_ms, bar.end_ms))
        (left_ms, first), (right_ms, last) = (
            whisker_end(bar.start_ms + end, most_ms) for end in (bar.ms.low, bar.ms.high)
        )
        whisker = (
            None if bar.part == "pass" else (_share(left_ms, most_ms), _share(right_ms, most_ms))
        )
        left, right = _share(low, most_ms), _share(high, most_ms)
        made.append(
            FallBar(bar.part, label, figure, left, round(right - left, 2), whisker, (first, last))
        )
    return tuple(made)


def _share(ms: float, most_ms: float) -> float:
    return round(100 * max(0.0, ms) / most_ms, 2)


def changes_table(ledger: Ledger) -> ReportTable:
    """Return the numbers of the waterfall."""
    columns = ("part", "term", "change (ms)", "low (ms)", "high (ms)")
    rows = [
        (
            bar.part,
            text.plain(bar.label),
            *(f"{ms:.4f}" for ms in (bar.ms.value, bar.ms.low, bar.ms.high)),
        )
        for bar in bars(ledger)
    ]
    return ReportTable(columns, rows, numbers=frozenset(columns[2:]))
