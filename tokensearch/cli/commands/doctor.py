"""`tokensearch doctor`."""

from dataclasses import asdict
from typing import Annotated

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import JsonOption

ModelsOption = Annotated[
    bool,
    typer.Option(
        "--models", help="say instead which of timm's models can follow a policy (a minute or two)"
    ),
]
NamesOption = Annotated[
    str, typer.Option("--names", metavar="PATTERN", help="of --models: names like vit_*_dinov3")
]


def doctor(
    models: ModelsOption = False, names: NamesOption = "*", as_json: JsonOption = False
) -> None:
    """Say whether this machine can do the job, what is missing, and how noisy it is."""
    able = _models(names, as_json=as_json) if models else _machine(as_json=as_json)
    raise typer.Exit(0 if able else 1)


def _machine(*, as_json: bool) -> bool:
    from tokensearch.doctor.machine import examine_machine

    err.print("looking at packages and devices, then timing for a few seconds ...")
    checks = examine_machine()
    able = all(check.state != "problem" for check in checks)
    if as_json:
        print_json({"able": able, "checks": [asdict(check) for check in checks]})
        return able
    for check in checks:
        out.print(f"{check.state:<8} {check.name:<12} {check.finding}", soft_wrap=True)
        if check.remedy:
            out.print(f"{'':<21} {check.remedy}", soft_wrap=True)
    return able


def _models(pattern: str, *, as_json: bool) -> bool:
    from tokensearch.doctor.models import families, walk
    from tokensearch.report.table import ReportTable, table_to_rich

    err.print("building timm's Vision Transformers one by one, three small blocks each ...")
    supports = tuple(walk(pattern))
    if as_json:
        print_json([asdict(one) for one in supports])
    else:
        groups = families(supports)
        rows = [(one.host, one.block, str(len(one.names)), one.state) for one in groups]
        out.print(table_to_rich(ReportTable(("model", "block", "names", "policies"), rows)))
        for note in dict.fromkeys(one.note for one in groups if one.note):
            out.print(note, soft_wrap=True)
    return all(one.state != "fails" for one in supports)
