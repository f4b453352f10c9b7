"""`tokensearch profile`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from tokensearch.cli.console import caution, err, out, print_json
from tokensearch.cli.files import made, write
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
from tokensearch.cli.profiled import Asked, profiles_of
from tokensearch.cli.progress import listener
from tokensearch.cli.sides import PROFILE_FILE, model_of, read_side, settled
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy
from tokensearch.profiles import Profile, profile_to_json
from tokensearch.run_folder import RunFolder

if TYPE_CHECKING:
    from tokensearch.costs import CostTable

SECONDS, SWEEP_SECONDS = 20.0, 150.0
COSTS_FILE, STAIRS = "costs.json", "staircase.png"


def profile(
    model: Annotated[
        str | None,
        Option("--model", metavar="NAME", help="as in `run`; default: what the policy is for"),
    ] = None,
    policy: Annotated[
        str | None, Option("--policy", metavar="FILE", help="policy file, or folder of a run")
    ] = None,
    preset: Annotated[
        str | None, Option("--preset", metavar="NAME", help="published schedule; see `presets`")
    ] = None,
    rescale: RescaleOption = False,
    sweep: Annotated[
        bool,
        Option("--sweep", help="measure what every token count and operator costs: costs.json"),
    ] = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "float32",
    batch_size: BatchOption = 8,
    backend: BackendOption = "eager",
    seconds: Annotated[
        float | None, Option("--seconds", min=1.0, help="of passes; 20, and 150 for a sweep")
    ] = None,
    seed: SeedOption = 0,
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
    side = _read(policy) if policy is not None else preset or "none"
    asked = Asked(
        model or model_of([side]) or DEMO, device, dtype, batch_size, backend, seed, rescale=rescale
    )
    if out_folder is not None:
        made(out_folder)
    if sweep:
        table = _swept(asked, seconds or SWEEP_SECONDS)
        _hand_out_costs(table, out_folder, as_json=as_json)
        return
    (found,) = profiles_of(
        [side],
        names=[policy or preset or "none"],
        asked=asked,
        seconds=seconds or SECONDS,
        folder=out_folder,
    )
    _hand_out(found, out_folder, as_json=as_json)


def _read(name: str) -> Policy:
    """Read a policy, or the answer of a run."""
    side = read_side(name)
    if not isinstance(side, Policy | RunFolder):
        raise PolicyError(
            f"{name} is no policy file and no folder of a run; --preset takes the names of presets"
        )
    (found,) = settled([side, "none"])[:1]
    assert isinstance(found, Policy), "beside a preset, a run stands for its answer"
    return found


def _hand_out(found: Profile, folder: Path | None, *, as_json: bool) -> None:
    document = profile_to_json(found)
    if folder is not None:
        write(folder / PROFILE_FILE, document)
    from tokensearch.profiling import doubts
    from tokensearch.report.profile_text import profile_text

    for doubt in doubts(found, found):
        caution(doubt.value)
    if as_json:
        print_json(document)
        return
    out.print(profile_text(found))
    if folder is not None:
        out.print(f"profile      {folder / PROFILE_FILE}", soft_wrap=True)
        out.print(f"TensorBoard  tensorboard --logdir {folder / 'tensorboard'}", soft_wrap=True)
        for trace in sorted((folder / "tensorboard").rglob("*.json.gz")):
            out.print(f"Perfetto     {trace}", soft_wrap=True)


def _swept(asked: Asked, seconds: float) -> "CostTable":
    from tokensearch.costs.sweep import sweep

    ready = asked.timed()
    with listener(err) as watcher:
        watcher.stage("sweeping token counts and operators")
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
    from tokensearch.report.staircase import draw_staircase, staircase_text

    if folder is not None:
        write(folder / COSTS_FILE, costs_to_json(table))
        draw_staircase(table, folder / STAIRS)
    if as_json:
        print_json(costs_to_json(table))
        return
    out.print(staircase_text(table))
    if folder is not None:
        out.print(f"costs      {folder / COSTS_FILE}", soft_wrap=True)
        out.print(f"staircase  {folder / STAIRS}", soft_wrap=True)
