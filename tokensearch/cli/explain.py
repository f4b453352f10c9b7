"""What `tokensearch diff` hands out: a ledger as text, JSON and pictures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensearch.cli.console import caution, out, print_json
from tokensearch.cli.files import write
from tokensearch.cli.profiled import TRACES
from tokensearch.cli.remedies import said
from tokensearch.cli.sides import LEDGER_FILE, PROFILE_FILE
from tokensearch.errors import MeasurementError
from tokensearch.ledger import Ledger, ledger
from tokensearch.profiles import Profile, profile_to_json

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
    from tokensearch.costs import staircase
    from tokensearch.profiling import doubts
    from tokensearch.report.ledger_json import ledger_to_json
    from tokensearch.report.ledger_words import in_words
    from tokensearch.report.waterfall import waterfall

    if folder is not None:  # first of all: what was timed is not to be timed again
        _leave_profiles(baseline, candidate, folder)
    stairs = None if costs is None else staircase(costs)
    found, doubted = ledger(baseline, candidate), doubts(baseline, candidate)
    document = ledger_to_json(found, stairs) | {
        "cautions": [doubt.name.lower() for doubt in doubted]
    }
    if folder is not None:
        _leave(found, document, folder)
    for doubt in doubted:
        caution(said(doubt))
    if as_json:
        print_json(document)
        return
    for sentence in in_words(found, stairs):
        out.print(sentence)
    if not found.empty:
        out.print(waterfall(found))
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
        write(folder / side / PROFILE_FILE, profile_to_json(profile))


def _leave(found: Ledger, document: Mapping[str, Any], folder: Path) -> None:
    """Write ledger and pictures, each whole."""
    from tokensearch.report.flame import draw_flame
    from tokensearch.report.waterfall_picture import draw_waterfall

    write(folder / LEDGER_FILE, document)
    for name in PICTURES:
        draw_waterfall(found, folder / name)
    draw_flame(found, folder / FLAME)


def costs_for(path: Path, model: str) -> "CostTable":
    """Read a cost table, which must be one of `model`."""
    from tokensearch.costs import load_costs

    table = load_costs(path)
    if table.model.name != model:
        raise MeasurementError(f"{path} holds the costs of {table.model.name}, not of {model}")
    return table
