"""`tokensearch profile`."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from tokensearch.cli.console import caution, err, out, print_json, with_remedy, write_document
from tokensearch.cli.operands import (
    PROFILE_FILE,
    Operand,
    read_operand,
    read_preset,
    resolve_run_folders,
)
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption
from tokensearch.cli.profile_inputs import ProfileOptions, profile_operands, say_launches
from tokensearch.cli.progress import progress_listener
from tokensearch.errors import MeasurementError, PolicyError
from tokensearch.files import make_folder
from tokensearch.policy import Policy
from tokensearch.records.profile import Profile
from tokensearch.records.profile_file import profile_to_json
from tokensearch.records.run_folder import RunFolder

if TYPE_CHECKING:
    from tokensearch.costs import CostTable

SECONDS, SWEEP_SECONDS = 20.0, 150.0
COSTS_FILE, STAIRS = "costs.json", "staircase.png"


@grouped
def profile(
    asked: ProfileOptions,
    policy: Annotated[
        str | None, Option("--policy", metavar="FILE", help="policy file, or folder of a run")
    ] = None,
    preset: Annotated[
        str | None, Option("--preset", metavar="NAME", help="published schedule; see `presets`")
    ] = None,
    sweep: Annotated[
        bool,
        Option("--sweep", help="measure what every token count and operator costs: costs.json"),
    ] = False,
    seconds: Annotated[
        float | None,
        Option(
            "--seconds",
            metavar="SECONDS",
            min=1.0,
            help="of passes: 20, and at least 12 rounds are timed; for a sweep 150",
        ),
    ] = None,
    out_folder: Annotated[
        Path | None,
        Option("--out", metavar="DIR", help="folder for profile.json and traces, or costs.json"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a pass spends its time: by block, phase, operator and kernel.

    Weights and images are random: time does not depend on them.
    """
    if sum((policy is not None, preset is not None, sweep)) > 1:
        raise typer.BadParameter("--policy, --preset and --sweep exclude one another")
    side = _read(policy) if policy is not None else read_preset(preset or "none")
    asked = asked.beside([side])
    if out_folder is not None:
        make_folder(out_folder)
    if sweep:
        table = _swept(asked, seconds or SWEEP_SECONDS)
        _hand_out_costs(table, out_folder, as_json=as_json)
        return
    (profile,) = profile_operands(
        [side],
        names=[policy or preset or "none"],
        asked=asked,
        seconds=seconds or SECONDS,
        folder=out_folder,
    )
    _hand_out(profile, out_folder, as_json=as_json)


def _read(name: str) -> Policy:
    """Read a policy, or the answer of a run."""
    side: Operand | None = None
    if Path(name).exists():
        with suppress(MeasurementError):  # a damaged profile or trace is no policy either
            side = read_operand(name)
    if not isinstance(side, Policy | RunFolder):
        raise PolicyError(
            f"{name} is no policy file and no folder of a run; --preset takes the names of presets"
        )
    (profile,) = resolve_run_folders([side, "none"])[:1]
    assert isinstance(profile, Policy), "beside a preset, a run stands for its answer"
    return profile


def _hand_out(profile: Profile, folder: Path | None, *, as_json: bool) -> None:
    document = profile_to_json(profile)
    if folder is not None:
        write_document(folder / PROFILE_FILE, document)
    from tokensearch.profiling import profile_cautions
    from tokensearch.report.profile import profile_lines

    for doubt in profile_cautions(profile, profile):
        caution(with_remedy(doubt))
    if as_json:
        print_json(document)
        return
    out.print(profile_lines(profile))
    if folder is not None:
        out.print(f"profile      {folder / PROFILE_FILE}", soft_wrap=True)
        out.print(f"TensorBoard  tensorboard --logdir {folder / 'tensorboard'}", soft_wrap=True)
        for trace in sorted((folder / "tensorboard").rglob("*.json.gz")):
            out.print(f"Perfetto     {trace}", soft_wrap=True)


def _swept(asked: ProfileOptions, seconds: float) -> "CostTable":
    from tokensearch.costs.sweep import sweep

    ready = asked.timed()
    say_launches(ready)
    with progress_listener(err) as watcher:
        watcher.stage("sweeping token counts and operators", unit="s")
        return sweep(
            ready.model,
            images=ready.images,
            cell=ready.cell,
            seconds=seconds,
            seed=asked.seed,
            listener=watcher,
        )


def _hand_out_costs(table: "CostTable", folder: Path | None, *, as_json: bool) -> None:
    from tokensearch.costs import costs_to_json
    from tokensearch.report.costs import draw_staircase, staircase_text

    if folder is not None:
        write_document(folder / COSTS_FILE, costs_to_json(table))
        draw_staircase(table, folder / STAIRS)
    if as_json:
        print_json(costs_to_json(table))
        return
    out.print(staircase_text(table))
    if folder is not None:
        out.print(f"costs      {folder / COSTS_FILE}", soft_wrap=True)
        out.print(f"staircase  {folder / STAIRS}", soft_wrap=True)
