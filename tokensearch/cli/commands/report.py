"""`tokensearch report`."""

from pathlib import Path
from typing import Annotated

from typer import Argument, BadParameter, Option

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import JsonOption
from tokensearch.cli.sharing import StorageOption, StudyOption, fetch_folder
from tokensearch.records.run_folder import RunFolder

SEVERAL = Path("runs-report")  # folder of the page of several runs


def report(
    runs: Annotated[
        list[Path], Argument(metavar="RUN", help="folders of finished runs of one model")
    ],
    storage: StorageOption = None,
    study: StudyOption = None,
    out_folder: Annotated[
        Path | None,
        Option(
            "--out",
            metavar="DIR",
            help=f"folder for it; else the run's own, or {SEVERAL} for several runs",
        ),
    ] = None,
    show: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw a run's report again: report.html, report.md, pictures and tables. Says the verdict.

    Of several runs of one model, one page: cells side by side, what to ship where, and what one
    policy for all would cost.
    With --study of a --storage, the folder is made of what workers have left there.
    """
    import webbrowser

    if study is not None:
        if len(runs) > 1:
            raise BadParameter("--study makes one folder; give one RUN")
        fetch_folder(RunFolder(runs[0]), storage, study)
    if len(runs) == 1:
        page, written, sentences = _draw_one(RunFolder(runs[0]), out_folder)
    else:
        from tokensearch.report.html.runs import write_runs

        page, sentences = write_runs(runs, out_folder or SEVERAL)
        written = None
    if show:
        webbrowser.open(page.resolve().as_uri())
    if as_json:
        paths = {"page": str(page)} | ({} if written is None else {"report": str(written)})
        print_json(paths if written is not None else {**paths, "sentences": list(sentences)})
        return
    for sentence in sentences:
        out.print(sentence)
    out.print(f"page    {page}", soft_wrap=True)
    if written is not None:
        out.print(f"report  {written}", soft_wrap=True)


def _draw_one(folder: RunFolder, out_folder: Path | None) -> tuple[Path, Path, tuple[str, ...]]:
    from tokensearch.report.run.page import write_report
    from tokensearch.report.run.sentences import target_sentence

    page = write_report(folder, out_folder)
    sentence = target_sentence(folder.require_run())
    return page, page.with_name(folder.report.name), (sentence,)
