"""What `tokensearch diff` hands out: a ledger as text, JSON and pictures."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensearch.chrome import ChromeTrace
from tokensearch.cli.console import caution, out, print_json
from tokensearch.cli.files import write
from tokensearch.cli.sides import LEDGER_FILE, PROFILE_FILE, Side
from tokensearch.errors import MeasurementError
from tokensearch.ledger import Ledger, ledger
from tokensearch.operator_changes import operator_changes
from tokensearch.profiles import Profile, profile_to_json

if TYPE_CHECKING:
    from tokensearch.costs import CostTable
    from tokensearch.report.ledger_words import Staircase

PICTURES = ("waterfall.svg", "waterfall.png")
FLAME = "flame.svg"


def explain(
    baseline: Profile,
    candidate: Profile,
    *,
    costs: "CostTable | None",
    folder: Path | None,
    as_json: bool,
) -> None:
    """Print the ledger of two profiles, and leave all of it in `folder` if there is one."""
    from tokensearch.profiling import doubts
    from tokensearch.report.ledger_json import ledger_to_json
    from tokensearch.report.ledger_words import in_words
    from tokensearch.report.waterfall import waterfall

    if folder is not None:  # first of all: what was timed is not to be timed again
        _leave_profiles(baseline, candidate, folder)
    staircase = None if costs is None else _staircase(costs)
    found, doubted = ledger(baseline, candidate), doubts(baseline, candidate)
    document = ledger_to_json(found, staircase) | {
        "cautions": [doubt.name.lower() for doubt in doubted]
    }
    if folder is not None:
        _leave(found, document, folder)
    for doubt in doubted:
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


def _leave_profiles(baseline: Profile, candidate: Profile, folder: Path) -> None:
    write(folder / "baseline" / PROFILE_FILE, profile_to_json(baseline))
    write(folder / "candidate" / PROFILE_FILE, profile_to_json(candidate))


def _leave(found: Ledger, document: Mapping[str, Any], folder: Path) -> None:
    """Write ledger and pictures, each whole."""
    from tokensearch.report.flame import draw_flame
    from tokensearch.report.waterfall_picture import draw_waterfall

    write(folder / LEDGER_FILE, document)
    for name in PICTURES:
        draw_waterfall(found, folder / name)
    draw_flame(found, folder / FLAME)


def explain_traces(
    sides: Sequence[Side], *, names: Sequence[str], folder: Path | None, as_json: bool
) -> None:
    """Say what became of every operator and kernel between two traces, or trace and profile."""
    from tokensearch.report.grid import to_rich
    from tokensearch.report.operators import change_document, change_table

    traced = [_traced(side, name) for side, name in zip(sides, names, strict=True)]
    changes = operator_changes(*(side.operators for side in traced))
    words = list(_trace_words(traced, names))
    document = change_document(changes, names) | {"words": words}
    if folder is not None:
        write(folder / LEDGER_FILE, document)
    if as_json:
        print_json(document)
        return
    for sentence in words:
        out.print(sentence)
    out.print(to_rich(change_table(changes)))
    if folder is not None:
        out.print(f"all of it  {folder / LEDGER_FILE}", soft_wrap=True)


def _traced(side: Side, name: str) -> ChromeTrace | Profile:
    if not isinstance(side, ChromeTrace | Profile):
        raise MeasurementError(
            f"a Chrome trace holds operators and kernels, so it is compared with another trace or "
            f"a profile; {name} is neither"
        )
    return side


def _trace_words(sides: Sequence[ChromeTrace | Profile], names: Sequence[str]) -> Iterator[str]:
    """What keeps two traces from being alike."""
    devices = [_device(side) for side in sides]
    if devices[0] != devices[1]:
        ran = [f"{name} ran on {device}" for name, device in zip(names, devices, strict=True)]
        yield f"The devices differ: {' and '.join(ran)}."
    for side, name in zip(sides, names, strict=True):
        if isinstance(side, ChromeTrace) and not side.stepped:
            yield f"{name} marks no steps, so all of it counts as one."


def _device(side: ChromeTrace | Profile) -> str:
    """Name what ran the kernels, or the host where there are none."""
    if not any(one.kernel for one in side.operators):
        return "the host alone"
    if isinstance(side, Profile):
        return side.cell.machine.name
    return " and ".join(side.devices) or "a device that it does not name"


def costs_for(path: Path, model: str) -> "CostTable":
    """Read a cost table, which must be one of `model`."""
    from tokensearch.costs import load_costs

    table = load_costs(path)
    if table.model.name != model:
        raise MeasurementError(f"{path} holds the costs of {table.model.name}, not of {model}")
    return table


def _staircase(table: "CostTable") -> "Staircase":
    from tokensearch.costs import staircase
    from tokensearch.report.ledger_words import Staircase

    return Staircase(staircase(table).treads, table.cell)
