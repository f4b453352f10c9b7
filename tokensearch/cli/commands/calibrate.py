"""`tokensearch calibrate`."""

from contextlib import nullcontext
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokensearch.cli.console import caution, check_file, err, out, print_json, write_document
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption
from tokensearch.cli.timing_subject import CellOverrides

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from tokensearch.cli.timing_subject import TimingSubject
    from tokensearch.policy import Evidence, Policy, PolicySet
    from tokensearch.records.run_folder import RunFolder
    from tokensearch.retime.calibrate import CalibratedFront


UNCONFIRMED = 4  # the exit code where nothing is confirmed, as of a target too close to call


@grouped
def calibrate(
    front: Annotated[Path, typer.Argument(metavar="FRONT", help="front.json of a run")],
    again: CellOverrides,
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=0.5, max=1e5, metavar="SECONDS", help="of timing, for all policies"
        ),
    ] = 10.0,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="where the front goes; default: FRONT-here.json beside it"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the policies of a front on this machine, so that a latency asked of it is one of here.

    Device, batch and backend are those of the front's own evidence, if not given. Accuracies stay
    what they were. What was timed in another cell is kept behind what is timed here. Exit code 4
    says that no policy could be confirmed.
    """
    from tokensearch.errors import PolicyError
    from tokensearch.policy import load_set
    from tokensearch.policy.file import set_to_json
    from tokensearch.records.run_folder import RunFolder

    if not isfinite(seconds):
        raise typer.BadParameter(f"--seconds is {seconds}; it must be a number")
    where = out_file or front.with_name(f"{front.stem}-here.json")
    with _locked(RunFolder(where.parent)):
        policies = load_set(front)
        if not policies.policies:
            raise PolicyError(f"{front} holds no policies that could be timed")
        check_file(where)
        calibrated = _calibrate(policies, again, seconds)
        write_document(where, set_to_json(calibrated.front))
    if as_json:
        print_json({"front": str(where), **_document(calibrated)})
    else:
        _show(calibrated, policies, where)
    if not calibrated.confirms:
        raise typer.Exit(UNCONFIRMED)


def _locked(folder: "RunFolder") -> "AbstractContextManager[None]":
    """Hold the folder where the front goes, if it is that of a run."""
    return folder.locked() if folder.run.exists() else nullcontext()


def _calibrate(policies: "PolicySet", again: CellOverrides, seconds: float) -> "CalibratedFront":
    """Time every policy, and say in which cell."""
    from tokensearch.cli.progress import progress_listener
    from tokensearch.evaluation.latency import PolicyTimer
    from tokensearch.measure.resolve_cell import name_cell
    from tokensearch.retime.calibrate import calibrate_front

    first = policies.policies[0]
    ready = _timed(first, again)
    cell = ready.cell
    if ready.spec.name != first.model.name:
        caution(f"the front was made for {first.model.name!r}, and is timed on {ready.spec.name}")
    err.print(f"model {ready.spec.name} on {name_cell(cell)}; weights and images are random")
    with progress_listener(err) as watcher:
        return calibrate_front(
            policies,
            PolicyTimer(ready.model, ready.images, cell, 0, dense=ready.dense),
            seconds,
            watcher,
        )


def _timed(first: "Policy", again: CellOverrides) -> "TimingSubject":
    """Prepare the model in the cell of a policy's own evidence, but for what is asked."""
    before = first.evidence[0].cell
    return again.timed(
        again.named(first.model.name, what="the front"),
        device=str(before.get("device", "auto")),
        dtype=str(before.get("dtype", "float32")),
        batch=max(1, round(before["batch"])),
        backend=before.get("backend", "eager"),
        seed=0,
        size=_size(before),
    )


def _size(cell: "Mapping[str, Any]") -> tuple[int, int] | None:
    """Return rows and columns of the images that a cell is of, where it says so."""
    rows = cell.get("resolution")
    return None if rows is None else (rows, cell.get("columns", rows))


def _show(calibrated: "CalibratedFront", before: "PolicySet", where: Path) -> None:
    """Print what was timed, and where it is now."""
    from tokensearch.report.run.console import calibration_table
    from tokensearch.report.table import table_to_rich

    table = calibration_table(calibrated.front, before, calibrated.fresh, calibrated.doubts)
    out.print(table_to_rich(table))
    out.print(f"front  {where}", soft_wrap=True)


def _document(calibrated: "CalibratedFront") -> dict[str, Any]:
    """Return what counts, fastest first, and beside it what was timed now."""
    policies = calibrated.front.policies
    return {
        "cell": policies[0].evidence[0].cell,
        "policies": [
            {
                "schedule_hash": policy.schedule_hash,
                "patch_tokens_per_block": list(policy.patch_tokens_per_block),
                **_figures(policy.evidence[0]),
                "now": _figures(calibrated.fresh[policy.schedule_hash]),
            }
            for policy in policies
        ],
    }


def _figures(evidence: "Evidence") -> dict[str, Any]:
    return {
        "median_ms": evidence.median_ms,
        "baseline_ms": evidence.baseline["median_ms"],
        "comparison": evidence.extra.get("comparison"),
        "confirmed": evidence.confirmed,
    }
