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
    images, on which time does not depend.
    """
    from tokensearch.chrome import ChromeTrace
    from tokensearch.cli.explain import explain, explain_traces
    from tokensearch.cli.profiled import Asked, profiles_of
    from tokensearch.cli.sides import model_of, read_side, settled

    sides = [read_side(a), read_side(b)]
    if any(isinstance(side, ChromeTrace) for side in sides):
        explain_traces(sides, names=(a, b), as_json=as_json)
        return
    wanted = settled(sides)
    asked = Asked(
        model or model_of(wanted) or DEMO, device, dtype, batch_size, backend, seed, rescale=rescale
    )
    baseline, candidate = profiles_of(
        wanted, names=(a, b), asked=asked, seconds=seconds, folder=out_folder
    )
    explain(baseline, candidate, costs=costs, folder=out_folder, as_json=as_json)
