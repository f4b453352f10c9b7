"""`tokensearch report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import JsonOption
from tokensearch.records.run_folder import RunFolder


def report(
    run: Annotated[Path, Argument(metavar="RUN", help="The folder of a finished run.")],
    out_folder: Annotated[
        Path | None, Option("--out", metavar="DIR", help="Folder for it; else the run's own.")
    ] = None,
    show: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a run's report again: report.html, report.md, pictures and tables. Says the verdict."""
    import webbrowser

    from tokensearch.report.run.page import write_report
    from tokensearch.report.run.sentences import target_sentence

    folder = RunFolder(run)
    page = write_report(folder, out_folder)
    written = page.with_name(folder.report.name)
    if show:
        webbrowser.open(page.resolve().as_uri())
    if as_json:
        print_json({"report": str(written), "page": str(page)})
        return
    out.print(target_sentence(folder.require_run()))
    out.print(f"page    {page}", soft_wrap=True)
    out.print(f"report  {written}", soft_wrap=True)
