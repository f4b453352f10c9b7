"""`tokensearch retarget`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tokensearch.cli.console import err
from tokensearch.cli.options import JsonOption, TargetOption
from tokensearch.cli.run import hand_out


def retarget(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    latency_target: TargetOption,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="default: that of the run")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, metavar="N", help="default: the run's")
    ] = None,
    backend: Annotated[
        Literal["eager", "compile", "cudagraph"] | None,
        typer.Option("--backend", help="default: the run's"),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="run folder; RUN-retargeted/CELL-TARGET if none"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Answer another target, device, batch or backend from a finished run, by timings alone.

    Accuracies are those of the run. Exit codes are those of `run`.
    """
    from tokensearch.cli.progress import listener
    from tokensearch.cli.timed import timed
    from tokensearch.policy import parse_target
    from tokensearch.run_folder import RunFolder
    from tokensearch.search.retarget import Retarget, check_place, finished
    from tokensearch.search.timing import Timing

    target, source = parse_target(latency_target), finished(RunFolder(run))
    if out_folder is not None:  # refused before anything is prepared
        check_place(source.folder, RunFolder(out_folder))
    asked = source.settings
    ready = timed(
        asked.model,
        device=device or asked.device,
        dtype=asked.dtype,
        batch=batch_size or asked.batch,
        backend=backend or asked.backend,
        seed=asked.seed,
    )
    cell = ready.cell
    way = f"{cell.device}-{cell.backend}-batch{cell.batch}-{target}".replace("/", "-")
    folder = RunFolder(out_folder or Path(f"{_named(run)}-retargeted") / way)
    check_place(source.folder, folder)
    err.print(
        f"model {asked.model} on {cell.device}, {cell.dtype}, batch {cell.batch}, "
        f"{cell.backend}; run folder {folder.path}"
    )
    with listener(err) as watcher:
        document = Retarget(
            source,
            folder,
            Timing(ready.model, ready.images, cell, asked.seed),
            target,
            watcher,
            shlex.join(["tokensearch", *sys.argv[1:]]),
        ).run()
    hand_out(folder, document, as_json=as_json)


def _named(run: Path) -> Path:
    """The folder by a name of its own, which `.` and `..` are not."""
    return run.resolve() if run.name in {"", ".."} else run
