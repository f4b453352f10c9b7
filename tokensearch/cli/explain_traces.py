"""What `tokensearch diff` hands out of two Chrome traces, or of one and a profile."""

from collections.abc import Sequence
from pathlib import Path

from tokensearch.chrome import ChromeTrace
from tokensearch.cli.console import out, print_json
from tokensearch.cli.files import write
from tokensearch.cli.sides import LEDGER_FILE, Side
from tokensearch.errors import MeasurementError
from tokensearch.operator_changes import operator_changes
from tokensearch.profiles import Profile
from tokensearch.report.grid import to_rich
from tokensearch.report.operators import change_document, change_table
from tokensearch.report.trace_words import trace_words


def explain_traces(
    sides: Sequence[Side], *, names: Sequence[str], folder: Path | None, as_json: bool
) -> None:
    """Say what became of every operator and kernel between two traces, or trace and profile."""
    traced = [_traced(side, name) for side, name in zip(sides, names, strict=True)]
    changes = operator_changes(*(side.operators for side in traced))
    words = trace_words(traced, names, changes)
    document = change_document(changes, names) | {"words": list(words)}
    if folder is not None:
        write(folder / LEDGER_FILE, document)
    if as_json:
        print_json(document)
        return
    for sentence in words:
        out.print(sentence)
    out.print(to_rich(change_table(changes)))
    if folder is not None:
        out.print(f"ledger  {folder / LEDGER_FILE}", soft_wrap=True)


def _traced(side: Side, name: str) -> ChromeTrace | Profile:
    if not isinstance(side, ChromeTrace | Profile):
        raise MeasurementError(
            f"a Chrome trace holds operators and kernels, so it is compared with another trace or "
            f"a profile; {name} is neither"
        )
    if not side.operators:
        raise MeasurementError(f"{name} was not traced, so it has no operators to compare")
    return side
