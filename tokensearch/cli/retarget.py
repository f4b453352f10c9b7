"""`tokensearch retarget`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import JsonOption
from tokensearch.cli.run import TargetOption

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")]


def retarget(
    run: RunArgument,
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
    from tokensearch.errors import RunError
    from tokensearch.policy import load_set, parse_target
    from tokensearch.report.markdown import write_report
    from tokensearch.report.summary import summary
    from tokensearch.run_folder import RunFolder
    from tokensearch.search.retarget import known_of, retargeted
    from tokensearch.search.timing import Timing

    target, source = parse_target(latency_target), RunFolder(run)
    known_of(source)  # refused before anything is prepared
    document = source.read_run()
    assert document is not None
    asked = document["settings"]
    ready = timed(
        asked["model"],
        device=device or asked["device"],
        dtype=asked["dtype"],
        batch=batch_size or asked["batch"],
        backend=backend or asked["backend"],
        seed=asked["seed"],
    )
    cell = ready.cell
    way = f"{cell.device}-{cell.backend}-batch{cell.batch}-{target}".replace("/", "-")
    where = out_folder or Path(f"{run}-retargeted") / way
    folder = RunFolder(where)
    if folder.path.resolve() == source.path.resolve():
        raise RunError(f"{where} is the run itself; name another folder with --out")
    folder.check()
    err.print(f"model {asked['model']} on {cell.device}, batch {cell.batch}; run folder {where}")
    with listener(err) as watcher:
        result = retargeted(
            source,
            folder,
            Timing(ready.model, ready.images, cell, asked["seed"]),
            target,
            listener=watcher,
            command=shlex.join(["tokensearch", *sys.argv[1:]]),
        )
    write_report(folder)
    if as_json:
        print_json(result)
    else:
        out.print(summary(result, load_set(folder.front), folder=folder))
    raise typer.Exit(result["result"]["exit_code"])
