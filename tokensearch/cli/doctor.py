"""`tokensearch doctor`."""

from dataclasses import asdict

import typer

from tokensearch.cli.console import err, out, print_json
from tokensearch.cli.options import JsonOption


def doctor(as_json: JsonOption = False) -> None:
    """Say whether this machine can do the job, what is missing, and how noisy it is."""
    from tokensearch.cli.health import examine

    err.print("looking at packages and devices, then timing for a few seconds ...")
    checks = examine()
    able = all(check.state != "problem" for check in checks)
    if as_json:
        print_json({"able": able, "checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            out.print(f"{check.state:<8} {check.name:<12} {check.finding}", soft_wrap=True)
            if check.remedy:
                out.print(f"{'':<21} {check.remedy}", soft_wrap=True)
    raise typer.Exit(0 if able else 1)
