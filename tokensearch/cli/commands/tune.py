"""`tokensearch tune`: learned steps."""

from pathlib import Path
from typing import Annotated

import typer

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import JsonOption
from tokensearch.policy import load, save
from tokensearch.policy.file import policy_to_json

tune = typer.Typer(
    name="tune",
    help="Work on steps that learn: make thresholds static.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@tune.callback()
def describe_tune() -> None:
    """Work on steps that learn: make thresholds static."""


@tune.command()
def freeze(
    policy: Annotated[Path, typer.Argument(help="policy file with thresholds")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="default: POLICY-static.json beside it")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the policy that keeps equal counts for all images: the mean ones of its thresholds.

    It can be compiled, captured and exported. Measure both with `tokensearch evaluate`.
    """
    from tokensearch.tune.freeze import freeze as freeze_policy

    twin = freeze_policy(load(policy))
    path = out_file or policy.with_name(f"{policy.stem}-static.json")
    save(twin, path)
    if as_json:
        print_json({"file": str(path), **policy_to_json(twin)})
        return
    counts = " ".join(map(str, twin.patch_tokens_after_block))
    out.print(f"{path}: patch tokens after each block {counts}")
    out.print(f"measure both: tokensearch evaluate {policy}; tokensearch evaluate {path}")
