"""`tokensearch diff`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tokensearch.cli.options import (
    DEMO,
    BackendOption,
    BatchOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    RescaleOption,
    SeedOption,
)

SideArgument = Annotated[
    str,
    Argument(help="preset, policy file, run folder, profile (folder or file), or Chrome trace"),
]
SECONDS = 90.0  # DeiT-S at batch 8 on two cores: some forty rounds


def diff(
    a: SideArgument,
    b: SideArgument,
    model: Annotated[
        str | None,
        Option("--model", metavar="NAME", help="as in `run`; default: what A or B was made for"),
    ] = None,
    rescale: RescaleOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    batch_size: BatchOption = 8,
    backend: BackendOption = "eager",
    seconds: Annotated[
        float, Option("--seconds", min=1.0, help="of passes, for what is profiled on the spot")
    ] = SECONDS,
    costs: Annotated[
        Path | None,
        Option("--costs", metavar="FILE", help="costs.json of `profile --sweep`, for its steps"),
    ] = None,
    seed: SeedOption = 0,
    out_folder: Annotated[
        Path | None,
        Option("--out", metavar="DIR", help="folder for profiles, traces, ledger and pictures"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a difference in latency, term by term: saved, spent, shifted, and what is left.

    Presets and policies are profiled on the spot, in turn with each other, with random weights and
    images, on which time does not depend; beside a stored profile, in the batch, number type and
    backend of that.
    """
    from tokensearch.chrome import ChromeTrace
    from tokensearch.cli.explain import costs_for, explain, explain_traces
    from tokensearch.cli.files import made
    from tokensearch.cli.profiled import Asked, profiles_of
    from tokensearch.cli.sides import model_of, read_side, settled
    from tokensearch.cli.subject import resolve_name
    from tokensearch.errors import MeasurementError
    from tokensearch.profiles import Profile

    sides = [read_side(a), read_side(b)]
    if any(isinstance(side, ChromeTrace) for side in sides):
        if costs is not None:
            raise MeasurementError("--costs are of token counts, of which a Chrome trace has none")
        explain_traces(sides, names=(a, b), folder=out_folder, as_json=as_json)
        return
    wanted = settled(sides)
    asked = Asked(
        model or model_of(wanted) or DEMO, device, dtype, batch_size, backend, seed, rescale=rescale
    ).beside(wanted)
    if out_folder is not None:
        made(out_folder)
    table = None
    if costs is not None:  # what cannot be used is refused before anything is timed
        last = wanted[1]
        name = last.model if isinstance(last, Profile) else resolve_name(asked.model)
        table = costs_for(costs, name)
    baseline, candidate = profiles_of(
        wanted, names=(a, b), asked=asked, seconds=seconds, folder=out_folder
    )
    explain(baseline, candidate, costs=table, folder=out_folder, as_json=as_json)
