"""`tokensearch retarget`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokensearch.cli.commands.run import hand_out
from tokensearch.cli.console import check_writable, err, print_json
from tokensearch.cli.goal import GoalOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import ConfirmOption, JsonOption
from tokensearch.cli.timing_subject import CellOverrides
from tokensearch.redaction import redact_command

if TYPE_CHECKING:
    from tokensearch.cli.timing_subject import TimingSubject
    from tokensearch.policy import Goal
    from tokensearch.records.measurements import Cell
    from tokensearch.records.run_result import RunDocument
    from tokensearch.retime.retarget import FinishedRun


@grouped
def retarget(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    asked: GoalOptions,
    again: CellOverrides,
    confirm_seconds: ConfirmOption = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="run folder; RUN-retargeted/CELL-TARGET if none"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer another target, device, batch or backend from a finished run, by timings alone.

    Device, batch and backend are those of the run, if not given, and so are accuracies. In another
    cell, or where the run has no costs.json, token counts are swept first, for up to 20 s. Exit
    codes are those of `run`.
    """
    from tokensearch.records.run_folder import RunFolder

    goal = asked.goal()
    RunFolder(run).require_run()  # both are refused before anything heavy is imported
    from tokensearch.cli.progress import progress_listener
    from tokensearch.evaluation.latency import PolicyTimer
    from tokensearch.retime.retarget import Retarget, check_folder, read_finished

    source = read_finished(RunFolder(run))
    if out_folder is not None:  # what cannot be written is refused before anything is prepared
        check_folder(source.folder, RunFolder(out_folder))
    elif not _parent(run).is_dir():
        check_writable(_parent(run))
    ready = _timed(source, again)
    timing = PolicyTimer(
        ready.model, ready.images, ready.cell, source.settings.seed, dense=ready.dense
    )
    folder = RunFolder(out_folder or _usual(run, ready.cell, goal))
    check_folder(source.folder, folder)
    _say(source.settings.model, ready.cell, folder.path)
    command = redact_command(["tokensearch", *sys.argv[1:]])
    with progress_listener(err) as watcher:
        asked_again = Retarget(source, folder, timing, goal, watcher, command)
        if confirm_seconds is not None:
            asked_again = replace(asked_again, confirm_seconds=confirm_seconds)
        document = asked_again.run()
    hand_out(folder, document, print_document=_print_document if as_json else None)


def _print_document(document: "RunDocument") -> None:
    print_json(document.to_json())


def _timed(source: "FinishedRun", again: CellOverrides) -> "TimingSubject":
    """Prepare the model in the cell of the run, but for what is asked.

    Raises:
        ModelError: The user typed another model: accuracies are those of the run.
    """
    from tokensearch.errors import ModelError

    asked = source.settings
    name = again.named(asked.model, what=f"the run in {source.folder.path}")
    if name != asked.model:
        raise ModelError(
            f"--model is {name}, but the run in {source.folder.path} is of {asked.model!r}, whose "
            f"accuracies it quotes; search with the other model, or leave --model out"
        )
    return again.timed(
        name,
        device=asked.device,
        dtype=asked.dtype,
        batch=asked.batch,
        backend=asked.backend,
        seed=asked.seed,
        size=(asked.resolution, asked.columns or asked.resolution),
    )


def _usual(run: Path, cell: "Cell", goal: "Goal") -> Path:
    """Where an answer goes that nobody gave a place."""
    from tokensearch.measure.resolve_cell import device_slug

    way = f"{device_slug(cell)}-{cell.backend}-batch{cell.batch}-{goal.slug}".replace("/", "-")
    return _parent(run) / way


def _parent(run: Path) -> Path:
    """Where answers without --out lie."""
    return Path(f"{_named(run)}-retargeted")


def _say(model: str, cell: "Cell", folder: Path) -> None:
    from tokensearch.measure.resolve_cell import name_cell

    err.print(f"model {model} on {name_cell(cell)}; run folder {folder}")


def _named(run: Path) -> Path:
    """The folder by a name of its own, which `.` and `..` are not."""
    return run.resolve() if run.name in {"", ".."} else run
