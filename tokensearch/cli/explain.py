"""What `tokensearch diff` hands out: a ledger as text, JSON and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokensearch.chrome import ChromeTrace
from tokensearch.cli.console import caution, out, print_json
from tokensearch.cli.sides import PROFILE_FILE, Side
from tokensearch.errors import MeasurementError, RunError
from tokensearch.ledger import Ledger, ledger
from tokensearch.operator_changes import operator_changes
from tokensearch.policy.file import to_text, write_whole
from tokensearch.profiles import Operator, Profile, profile_to_json

LEDGER_FILE = "ledger.json"
PICTURES = ("waterfall.svg", "waterfall.png")
FLAME = "flame.svg"


def explain(
    baseline: Profile,
    candidate: Profile,
    *,
    costs: Path | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print the ledger of two profiles, and leave it in `folder` if there is one."""
    from tokensearch.profiling import doubts
    from tokensearch.report.ledger_json import ledger_to_json
    from tokensearch.report.ledger_words import in_words
    from tokensearch.report.waterfall import waterfall

    staircase = None if costs is None else staircase_of(costs, candidate.model)
    found = ledger(baseline, candidate)
    document = ledger_to_json(found, staircase)
    if folder is not None:
        _leave(found, document, folder)
    for doubt in doubts(baseline, candidate):
        caution(doubt.value)
    if as_json:
        print_json(document)
        return
    for sentence in in_words(found, staircase):
        out.print(sentence)
    if not found.empty:
        out.print(waterfall(found))
    if folder is not None:
        out.print(f"all of it  {folder}", soft_wrap=True)


def _leave(found: Ledger, document: Mapping[str, Any], folder: Path) -> None:
    """Write profiles, ledger and pictures, each whole."""
    from tokensearch.report.flame import draw_flame
    from tokensearch.report.waterfall_picture import draw_waterfall

    sides = {"baseline": found.baseline, "candidate": found.candidate}
    for role, profile in sides.items():
        write(folder / role / PROFILE_FILE, profile_to_json(profile))
    write(folder / LEDGER_FILE, document)
    for name in PICTURES:
        draw_waterfall(found, folder / name)
    draw_flame(found, folder / FLAME)


def made(folder: Path) -> Path:
    """Make a folder; RunError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document whole; RunError where it cannot be written."""
    made(path.parent)
    try:
        write_whole(path, to_text(document))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


def explain_traces(sides: Sequence[Side], *, names: Sequence[str], as_json: bool) -> None:
    """Print what became of every operator and kernel between two traces, or trace and profile."""
    from tokensearch.report.grid import to_rich
    from tokensearch.report.operators import change_document, change_table

    operators = [_operators(side, name) for side, name in zip(sides, names, strict=True)]
    changes = operator_changes(*operators)
    if as_json:
        print_json(change_document(changes, names))
        return
    out.print(to_rich(change_table(changes)))


def _operators(side: Side, name: str) -> Sequence[Operator]:
    if not isinstance(side, ChromeTrace | Profile):
        raise MeasurementError(
            f"a Chrome trace holds operators and kernels, so it is compared with another trace or "
            f"a profile; {name} is neither"
        )
    return side.operators


def staircase_of(path: Path, model: str) -> dict[int, float]:
    """Return milliseconds of one block of `model` by patch tokens, from a cost table's file."""
    from tokensearch.costs import load_costs
    from tokensearch.costs.staircase import block_costs

    table = load_costs(path)
    if table.model.name != model:
        raise MeasurementError(f"{path} holds the costs of {table.model.name}, not of {model}")
    return dict(block_costs(table))
