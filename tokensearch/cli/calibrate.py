"""`tokensearch calibrate`."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import BackendOption, BatchOption, DeviceOption, JsonOption

if TYPE_CHECKING:
    from tokensearch.policy import PolicySet


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
    from tokensearch.cli.files import check_file, write
    from tokensearch.cli.progress import listener
    from tokensearch.cli.timed import timed
    from tokensearch.errors import PolicyError
    from tokensearch.policy import load_set
    from tokensearch.policy.file import set_to_json
    from tokensearch.report.calibration import calibration_table
    from tokensearch.report.grid import to_rich
    from tokensearch.search.calibrate import calibrated
    from tokensearch.search.timing import Timing

    if not isfinite(seconds):
        raise typer.BadParameter(f"--seconds is {seconds}; it must be a number")
    policies, where = load_set(front), out_file or front
    if not policies.policies:
        raise PolicyError(f"{front} holds no policies that could be timed")
    check_file(where)
    first = policies.policies[0]
    ready = timed(
        first.model.name,
        device=device,
        dtype=first.evidence[0].cell.get("dtype", "float32"),
        batch=batch_size,
        backend=backend,
        seed=0,
    )
    cell = ready.cell
    err.print(
        f"model {first.model.name} on {cell.device}, {cell.dtype}, batch {cell.batch}, "
        f"{cell.backend}; weights and images are random"
    )
    with listener(err) as watcher:
        found = calibrated(policies, Timing(ready.model, ready.images, cell, 0), seconds, watcher)
    write(where, set_to_json(found))
    if as_json:
        print_json(_document(found, where))
    else:
        out.print(to_rich(calibration_table(found)))
        out.print(f"front  {where}", soft_wrap=True)


def _document(found: "PolicySet", where: Path) -> dict[str, Any]:
    """What was timed, fastest first."""
    return {
        "front": str(where),
        "cell": found.policies[0].evidence[0].cell,
        "policies": [
            {
                "schedule_hash": policy.schedule_hash,
                "patch_tokens_per_block": list(policy.patch_tokens_per_block),
                "median_ms": policy.evidence[0].median_ms,
                "baseline_ms": policy.evidence[0].baseline["median_ms"],
                "comparison": policy.evidence[0].extra["comparison"],
            }
            for policy in found.policies
        ],
    }
