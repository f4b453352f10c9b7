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
    """Draw a run's report again: report.md and its pictures. Says what the run came to."""
    from tokensearch.report.run.page import write_report
    from tokensearch.report.run.sentences import target_sentence

    folder = RunFolder(run)
    write_report(folder)
    if as_json:
        print_json({"report": str(folder.report)})
        return
    out.print(target_sentence(folder.require_run()))
    out.print(f"report  {folder.report}", soft_wrap=True)
