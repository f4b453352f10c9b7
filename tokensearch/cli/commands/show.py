"""`tokensearch show`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import (
    DEMO,
    CheckpointOption,
    DataConfigOption,
    ImgSizeOption,
    JsonOption,
    ModelKwargsOption,
    RescaleOption,
    read_options,
)
from tokensearch.cli.patches import PictureOptions, draw_survivors, traces_to_json
from tokensearch.errors import PolicyError, RunError
from tokensearch.policy import (
    Policy,
    PolicySet,
    block_macs,
    check_name,
    is_file,
    load,
    load_set,
    mac_share,
    preset,
)
from tokensearch.policy.file import holds_set, policy_to_json, set_to_json
from tokensearch.records.run_folder import RunFolder

if TYPE_CHECKING:
    from tokensearch.models import Options

PICTURE = "patches.png"
ONE_POLICY = "a policy file, or the name of a preset"
ANYTHING = "a policy, a front, the folder of a run, or the name of a preset"


def show(
    shown: Annotated[
        str,
        Argument(
            metavar="WHAT",
            help="a policy file, a front (front.json), the folder of a run, or a preset's name "
            "(see --model)",
        ),
    ],
    model: Annotated[
        str | None,
        Option(
            "--model",
            metavar="NAME",
            help="as in `run`; default: the one that a policy was made for, else demo",
        ),
    ] = None,
    img_size: ImgSizeOption = None,
    model_kwargs: ModelKwargsOption = None,
    rescale: RescaleOption = False,
    images: Annotated[
        list[Path] | None,
        Option(
            "--image",
            metavar="FILE ...",
            help="draw which patches of these images are dropped, merged and kept",
        ),
    ] = None,
    beside: Annotated[
        str | None,
        Option("--beside", metavar="POLICY", help="another policy to draw under the first"),
    ] = None,
    picture: Annotated[
        Path | None,
        Option("--out", metavar="FILE", help=f"the picture, {PICTURE} if not given"),
    ] = None,
    checkpoint: CheckpointOption = None,
    data_config: DataConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a policy, a front, a run or a preset is: its blocks, and the evidence for it.

    With --image, also which patches of an image are left behind each block.
    """
    if images:
        asked = PictureOptions(images, picture or Path(PICTURE), checkpoint, data_config)
    elif beside or picture or checkpoint or data_config:
        raise BadParameter("--beside, --out, --checkpoint and --data-config need --image")
    if Path(shown).is_dir() and not images:
        _show_run(RunFolder(Path(shown)), as_json=as_json)
    elif holds_set(shown) and not images:
        _show_front(shown, as_json=as_json)
    else:
        names = [name for name in (_answer_of(shown), beside) if name is not None]
        for name in names:
            check_policy_name(name, ONE_POLICY if images else ANYTHING)
        options = read_options(img_size, model_kwargs)
        made_for = model or (_model_of(names) if images else DEMO)
        chosen = [read_policy(name, made_for, options, rescale=rescale) for name in names]
        drawn = draw_survivors(chosen, names, asked, made_for, options) if images else None
        if as_json:
            print_json(_document(chosen[0]) | ({} if drawn is None else traces_to_json(drawn)))
        else:
            _print(chosen[0])
            if drawn is not None:
                out.print(f"picture  {asked.picture}", soft_wrap=True)


def _answer_of(shown: str) -> str:
    """Return the file of a run's answer where a run is given, else what was given.

    Raises:
        RunError: The folder is no run, or its run has no answer.
        PolicyError: It is a front, of which one policy must be chosen.
    """
    if Path(shown).is_dir():
        folder = RunFolder(Path(shown))
        folder.require_run()
        if not folder.policy.is_file():
            raise RunError(f"{shown} has no policy.json: no policy meets that run's target")
        return str(folder.policy)
    if holds_set(shown):
        raise PolicyError(f"{shown} is a front; give one of its policies, {ONE_POLICY}")
    return shown


def _model_of(names: Sequence[str]) -> str:
    """Return the model that the first policy file was made for; of presets alone, the demo."""
    files = [name for name in names if is_file(name)]
    if not files:
        return DEMO
    policy = load(files[0])
    if policy.model.name == DEMO:
        return DEMO
    from tokensearch.models import resolve_stored

    return resolve_stored(policy.model.name, what="the policy")


def read_policy(
    name: str, model: str, options: "Options | None" = None, *, rescale: bool = False
) -> Policy:
    """Read a policy file, or build the preset `name` for a model; PolicyError if it is neither."""
    check_policy_name(name)
    if is_file(name):
        return load(name)
    from tokensearch.cli.inputs import spec_of_model

    return preset(name, spec_of_model(model, options), rescale=rescale)


def check_policy_name(name: str, accepted: str = ONE_POLICY) -> None:
    """Refuse what is neither a file nor a preset's name, before anything heavy is imported."""
    if not is_file(name):
        check_name(name)
    elif not Path(name).is_file():
        what = "is a folder" if Path(name).is_dir() else "does not exist"
        raise PolicyError(f"{name} {what}; give {accepted}")


def _show_run(folder: RunFolder, *, as_json: bool) -> None:
    from tokensearch.report.run.console import summary, unfinished_summary

    run = folder.require_run()
    if as_json:
        print_json(run.to_json())
    elif run.result is None:
        out.print(unfinished_summary(run, folder))
    else:
        out.print(summary(run, load_set(folder.front), folder=folder))


def _show_front(file: str, *, as_json: bool) -> None:
    from tokensearch.report.run.console import member_table
    from tokensearch.report.run.tables import model_line
    from tokensearch.report.table import table_to_rich

    front: PolicySet = load_set(file)
    if as_json:
        print_json(set_to_json(front))
        return
    if not front.policies:
        out.print(f"{file} holds no policies")
        return
    out.print(model_line(front.policies[0].model))
    out.print(table_to_rich(member_table(front)))
    out.print('tokensearch.load_set(FILE).best("0.6x") chooses one of them by its latency.')


def _document(policy: Policy) -> dict[str, Any]:
    return {
        **policy_to_json(policy),
        "schedule_hash": policy.schedule_hash,
        "patch_tokens_per_block": list(policy.patch_tokens_per_block),
        "block_macs": list(block_macs(policy)),
        "mac_share": mac_share(policy),
    }


def _print(policy: Policy) -> None:
    from tokensearch.report.presets import provenance_lines
    from tokensearch.report.run import tables
    from tokensearch.report.run.result import measure_in
    from tokensearch.report.table import table_to_rich

    out.print(tables.model_line(policy.model))
    out.print(f"{tables.token_strip(policy)}  {tables.schedule_line(policy)}")
    for line in provenance_lines(policy):
        out.print(line)
    out.print(table_to_rich(tables.schedule_table(policy)))
    if policy.evidence:
        measure = measure_in(policy.evidence[0].accuracy)
        out.print(table_to_rich(tables.evidence_table(policy, measure)))
