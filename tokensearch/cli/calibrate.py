"""`tokensearch calibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import BackendOption, BatchOption, DeviceOption, JsonOption


def calibrate(
    front: Annotated[Path, typer.Argument(metavar="FRONT", help="front.json of a run")],
    device: DeviceOption = "auto",
    batch_size: BatchOption = 8,
    backend: BackendOption = "eager",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.5, max=1e5, help="of timing, for all policies")
    ] = 10.0,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="where the front goes; default: FRONT itself"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the policies of a front on this machine, so that a latency asked of it is one of here.

    Accuracies stay what they were. What was timed elsewhere is kept behind what is timed here.
    """
    from tokensearch.cli.progress import listener
    from tokensearch.cli.timed import timed
    from tokensearch.errors import PolicyError
    from tokensearch.policy import load_set, save_set
    from tokensearch.report.calibration import calibration_table
    from tokensearch.report.grid import to_rich
    from tokensearch.search.calibrate import calibrated
    from tokensearch.search.timing import Timing

    policies = load_set(front)
    if not policies.policies:
        raise PolicyError(f"{front} holds no policies that could be timed")
    first = policies.policies[0]
    ready = timed(
        first.model.name,
        device=device,
        dtype=first.evidence[0].cell.get("dtype", "float32"),
        batch=batch_size,
        backend=backend,
        seed=0,
    )
    err.print(f"model {first.model.name} on {ready.cell.device}, batch {batch_size}, {backend}")
    with listener(err) as watcher:
        found = calibrated(
            policies, Timing(ready.model, ready.images, ready.cell, 0), seconds, watcher
        )
    save_set(found, out_file or front)
    if as_json:
        print_json([dict(policy.evidence[0].extra["comparison"]) for policy in found.policies])
    else:
        out.print(to_rich(calibration_table(found)))
        out.print(f"front  {out_file or front}", soft_wrap=True)
