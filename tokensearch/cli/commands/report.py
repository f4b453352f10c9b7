"""`tokensearch report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import JsonOption
from tokensearch.records.run_folder import RunFolder


def report(
    run: Annotated[Path, Argument(metavar="RUN", help="The folder of a finished run.")],
    as_json: JsonOption = False,
) -> None:
    """Draw a run's report again: report.md and its pictures."""
    from tokensearch.report.run.page import write_report

    folder = RunFolder(run)
    write_report(folder)
    if as_json:
        print_json({"report": str(folder.report)})
        return
    out.print(str(folder.report), soft_wrap=True)
