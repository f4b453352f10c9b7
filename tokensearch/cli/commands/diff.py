"""`tokensearch diff`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption
from tokensearch.cli.profile_inputs import ProfileOptions

SideArgument = Annotated[
    str,
    Argument(help="preset, policy file, run folder, profile (folder or file), or Chrome trace"),
]
SECONDS = 90.0  # DeiT-S at batch 8 on two cores: some forty rounds


@grouped
def diff(
    a: SideArgument,
    b: SideArgument,
    asked: ProfileOptions,
    seconds: Annotated[
        float,
        Option(
            "--seconds",
            metavar="SECONDS",
            min=1.0,
            help="of passes, for what is profiled on the spot; at least 12 rounds are timed",
        ),
    ] = SECONDS,
    costs: Annotated[
        Path | None,
        Option("--costs", metavar="FILE", help="costs.json of `profile --sweep`, for its steps"),
    ] = None,
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
    from tokensearch.cli.inputs import resolve_name
    from tokensearch.cli.operands import is_stored, read_operand, resolve_run_folders
    from tokensearch.cli.profile_inputs import profile_operands
    from tokensearch.errors import MeasurementError
    from tokensearch.files import make_folder
    from tokensearch.records.profile import Profile

    names, sides = (a, b), [read_operand(a), read_operand(b)]
    if any(isinstance(side, ChromeTrace) for side in sides):
        if costs is not None:
            raise MeasurementError("--costs are of token counts, of which a Chrome trace has none")
        if all(map(is_stored, sides)):
            asked.refuse_beside(names)
        explain_traces(sides, names=names, folder=out_folder, as_json=as_json)
        return
    wanted = resolve_run_folders(sides)
    if all(map(is_stored, wanted)):
        asked.refuse_beside(names)
    else:
        asked = asked.beside(wanted)
    if out_folder is not None:
        make_folder(out_folder)
    table = None
    if costs is not None:  # what cannot be used is refused before anything is timed
        last = wanted[1]
        name = last.model if isinstance(last, Profile) else resolve_name(asked.name)
        table = costs_for(costs, name)
    baseline, candidate = profile_operands(
        wanted, names=names, asked=asked, seconds=seconds, folder=out_folder
    )
    explain(baseline, candidate, costs=table, folder=out_folder, as_json=as_json)
