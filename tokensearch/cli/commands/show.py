"""`tokensearch show`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import (
    DEMO,
    ImgSizeOption,
    JsonOption,
    ModelKwargsOption,
    ModelOption,
    RescaleOption,
    read_options,
)
from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, block_macs, is_file, load, mac_share, preset

if TYPE_CHECKING:
    from tokensearch.models import Options
from tokensearch.policy.file import policy_to_json


def show(
    policy: Annotated[
        str, Argument(metavar="POLICY", help="A policy file, or a preset's name (see --model).")
    ],
    model: ModelOption = DEMO,
    img_size: ImgSizeOption = None,
    model_kwargs: ModelKwargsOption = None,
    rescale: RescaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a policy block by block, and the evidence for it."""
    options = read_options(img_size, model_kwargs)
    chosen = read_policy(policy, model, options, rescale=rescale)
    if as_json:
        print_json(_document(chosen))
        return
    _print(chosen)


def read_policy(
    name: str, model: str, options: "Options | None" = None, *, rescale: bool = False
) -> Policy:
    """Read a policy file, or build the preset `name` for a model; PolicyError if it is neither."""
    if is_file(name):
        if not Path(name).is_file():
            what = "is a folder" if Path(name).is_dir() else "does not exist"
            raise PolicyError(f"{name} {what}; give a policy file, or the name of a preset")
        return load(name)
    from tokensearch.cli.inputs import spec_of_model

    return preset(name, spec_of_model(model, options), rescale=rescale)


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
