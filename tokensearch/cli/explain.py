"""Explain two profiles or two traces on the console, and leave ledger and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensearch.chrome import ChromeTrace
from tokensearch.cli.console import caution, out, print_json, with_remedy, write_document
from tokensearch.cli.operands import LEDGER_FILE, PROFILE_FILE, Operand
from tokensearch.cli.profile_inputs import TRACES
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.diff.operators import operator_changes
from tokensearch.errors import MeasurementError
from tokensearch.records.profile import Profile
from tokensearch.records.profile_file import profile_to_json
from tokensearch.report.diff.operators import change_document, change_table, trace_sentences
from tokensearch.report.table import table_to_rich

if TYPE_CHECKING:
    from tokensearch.costs import CostTable

PICTURES = ("waterfall.svg", "waterfall.png")
FLAME = "flame.svg"
SIDES = ("baseline", "candidate")  # folders of their profiles


def explain(
    baseline: Profile,
    candidate: Profile,
    *,
    costs: "CostTable | None",
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print the ledger of two profiles, and leave all of it in `folder` if there is one."""
    from tokensearch.costs import fit_staircase
    from tokensearch.profiling import profile_cautions
    from tokensearch.report.diff.sentences import ledger_sentences
    from tokensearch.report.diff.to_json import ledger_to_json
    from tokensearch.report.diff.waterfall import waterfall

    if folder is not None:  # first of all: what was timed is not to be timed again
        _leave_profiles(baseline, candidate, folder)
    stairs = None if costs is None else fit_staircase(costs)
    ledger, cautions = make_ledger(baseline, candidate), profile_cautions(baseline, candidate)
    document = ledger_to_json(ledger, stairs) | {
        "cautions": [item.name.lower() for item in cautions]
    }
    if folder is not None:
        _leave(ledger, document, folder)
    for item in cautions:
        caution(with_remedy(item))
    if as_json:
        print_json(document)
        return
    for sentence in ledger_sentences(ledger, stairs):
        out.print(sentence)
    if not ledger.empty:
        out.print(waterfall(ledger))
    for line in _left(folder):
        out.print(line, soft_wrap=True)


def _left(folder: Path | None) -> Iterator[str]:
    """Name what was left, kind by kind."""
    if folder is None:
        return
    yield f"ledger       {folder / LEDGER_FILE}"
    for name in (*PICTURES, FLAME):
        yield f"picture      {folder / name}"
    for side in SIDES:
        yield f"profile      {folder / side / PROFILE_FILE}"
    if (folder / TRACES).is_dir():  # beside stored profiles there may be none
        yield f"TensorBoard  tensorboard --logdir {folder / TRACES}"


def _leave_profiles(baseline: Profile, candidate: Profile, folder: Path) -> None:
    for side, profile in zip(SIDES, (baseline, candidate), strict=True):
        write_document(folder / side / PROFILE_FILE, profile_to_json(profile))


def _leave(ledger: Ledger, document: Mapping[str, Any], folder: Path) -> None:
    """Write ledger and pictures, each whole."""
    from tokensearch.report.diff.flame_graph import draw_flame
    from tokensearch.report.diff.waterfall import draw_waterfall

    write_document(folder / LEDGER_FILE, document)
    for name in PICTURES:
        draw_waterfall(ledger, folder / name)
    draw_flame(ledger, folder / FLAME)


def costs_for(path: Path, model: str) -> "CostTable":
    """Read a cost table, which must be one of `model`."""
    from tokensearch.costs import load_costs

    table = load_costs(path)
    if table.model.name != model:
        raise MeasurementError(f"{path} holds the costs of {table.model.name}, not of {model}")
    return table


def explain_traces(
    sides: Sequence[Operand], *, names: Sequence[str], folder: Path | None, as_json: bool
) -> None:
    """Say what became of every operator and kernel between two traces, or trace and profile."""
    traced = [_traced(side, name) for side, name in zip(sides, names, strict=True)]
    changes = operator_changes(*(side.operators for side in traced))
    words = trace_sentences(traced, names, changes)
    document = change_document(changes, names) | {"words": list(words)}
    if folder is not None:
        write_document(folder / LEDGER_FILE, document)
    if as_json:
        print_json(document)
        return
    for sentence in words:
        out.print(sentence)
    out.print(table_to_rich(change_table(changes)))
    if folder is not None:
        out.print(f"ledger  {folder / LEDGER_FILE}", soft_wrap=True)


def _traced(side: Operand, name: str) -> ChromeTrace | Profile:
    if not isinstance(side, ChromeTrace | Profile):
        raise MeasurementError(
            f"a Chrome trace holds operators and kernels, so it is compared with another trace or "
            f"a profile; {name} is neither"
        )
    if not side.operators:
        raise MeasurementError(f"{name} was not traced, so it has no operators to compare")
    return side
