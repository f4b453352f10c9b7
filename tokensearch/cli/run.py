"""Search for the schedules worth having: front, policy and report, in one run folder."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.group import grouped
from tokensearch.cli.options import JsonOption, TargetOption
from tokensearch.cli.searching import Searching
from tokensearch.cli.subject import Wanted
from tokensearch.redaction import redact_command

if TYPE_CHECKING:
    from tokensearch.cli.subject import Subject
    from tokensearch.policy import Target
    from tokensearch.records import Cell
    from tokensearch.run_folder import RunFolder
    from tokensearch.search import Settings, Space


@grouped
def run(
    *,
    wanted: Wanted,
    latency_target: TargetOption = "0.5x",
    searching: Searching,
    smaller: Annotated[
        str | None,
        typer.Option(
            "--smaller", metavar="NAME", help="a smaller model of the same classes to compare with"
        ),
    ] = None,
    smaller_checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--smaller-checkpoint", metavar="FILE", help="its weights, as for --checkpoint"
        ),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="run folder; runs/MODEL-DEVICE-TARGET if not given")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the schedules worth having: front, policy and report, in one run folder.

    Stopped at any moment, it goes on with the same command. Exit codes: 0 the target is met, 3 no
    policy meets it, 4 too close to call.
    """
    from tokensearch.cli.progress import listener
    from tokensearch.cli.smaller import smaller_for
    from tokensearch.cli.subject import prepare, resolve_name
    from tokensearch.policy import parse_target
    from tokensearch.run_folder import RunFolder
    from tokensearch.search import Session, load_space

    limits, target = searching.limits(), parse_target(latency_target)
    neighbours, space = searching.neighbours(), load_space(searching.space)
    resolve_name(wanted.model)
    if out_folder is not None:  # refused before anything is loaded
        RunFolder(out_folder).check(fresh=searching.fresh)
    subject = prepare(wanted)
    folder = _folder(wanted.model, subject.cell, target, out_folder)
    folder.check(fresh=searching.fresh)
    rival = smaller_for(subject, smaller, smaller_checkpoint)
    with listener(err) as watcher:
        session = Session(
            subject.model,
            subject.splits,
            space,
            _settings(wanted, searching, subject, target=target, space=space),
            limits,
            folder,
            watcher,
            redact_command(["tokensearch", *sys.argv[1:]]),
            searching.store(),
            searching.cache_gb,
            neighbours,
            rival,
            searching.fresh,
        )
        document = session.run()
    hand_out(folder, document, as_json=as_json)


def hand_out(folder: "RunFolder", document: Mapping[str, Any], *, as_json: bool) -> None:
    """Write the report, print the result, and exit with its code."""
    from tokensearch.policy import load_set
    from tokensearch.report.markdown import write_report
    from tokensearch.report.summary import summary

    write_report(folder)
    if as_json:
        print_json(document)
    else:
        out.print(summary(document, load_set(folder.front), folder=folder))
    raise typer.Exit(document["result"]["exit_code"])


def _folder(model: str, cell: "Cell", target: "Target", out_folder: Path | None) -> "RunFolder":
    """Return the run folder, and say which it is."""
    from tokensearch.cli.auto import in_path
    from tokensearch.run_folder import RunFolder

    way = in_path(cell) if cell.backend == "eager" else f"{in_path(cell)}-{cell.backend}"
    usual = Path("runs") / f"{model}-{way}-{target}".replace("/", "-")
    folder = RunFolder(out_folder or usual)
    err.print(f"run folder {folder.path}", soft_wrap=True)
    return folder


def _settings(
    wanted: Wanted, searching: Searching, subject: "Subject", *, target: "Target", space: "Space"
) -> "Settings":
    from tokensearch.search import Settings

    return Settings(
        model=subject.name,
        checkpoint=None if wanted.checkpoint is None else str(wanted.checkpoint),
        data=wanted.data,
        target=target,
        device=subject.cell.device,
        dtype=subject.cell.dtype,
        batch=wanted.batch_size,
        resolution=subject.cell.resolution,
        space=space.name,
        space_digest=space.digest,
        sampler=searching.sampler,
        seed=wanted.seed,
        objective=searching.objective,
        backend=subject.cell.backend,
    )
