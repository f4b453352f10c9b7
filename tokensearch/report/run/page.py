"""The hardware tuning report of a run folder, as a page of Markdown with its pictures."""

import warnings
from pathlib import Path

from tokensearch.diff.ledger import Ledger
from tokensearch.errors import RunError, TokensearchWarning
from tokensearch.files import make_folder, write_whole
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.diff.blocks import block_table
from tokensearch.report.diff.flame_graph import draw_flame
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.report.diff.waterfall import draw_waterfall, legend, term_table
from tokensearch.report.html.page import write_html
from tokensearch.report.patches import describe_patches, draw_answer_patches, save_patches
from tokensearch.report.run import tables
from tokensearch.report.run.alternatives import alternative_table
from tokensearch.report.run.footnotes import Footnotes, cautions_absent
from tokensearch.report.run.front_dots import compared_dots, front_members, picture_notes
from tokensearch.report.run.front_plot import draw_front
from tokensearch.report.run.limitations import limitation_lines
from tokensearch.report.run.notes import (
    alternatives_note,
    finalists_note,
    front_note,
    front_row_notes,
    origin_lines,
    profile_note,
    split_table,
)
from tokensearch.report.run.result import measure_of, reading
from tokensearch.report.run.results import results_table
from tokensearch.report.run.sentences import answer_sentences as answer_in_words
from tokensearch.report.run.source import ReportSource, read_source
from tokensearch.report.table import markdown_text, sentence, table_to_csv, table_to_markdown

FRONT_PICTURE, WATERFALL_PICTURE, FLAME_PICTURE = "front.png", "waterfall.png", "flame.svg"
PATCHES_PICTURE = "patches.webp"
RESULTS = "results.csv"


def write_report(folder: RunFolder, out: Path | None = None) -> Path:
    """Write a finished run's report, Markdown and HTML with pictures and tables; return the HTML.

    out  folder for it; None: the run's own

    Raises:
        RunError: The folder holds no run, is in use, the search has not ended, a file is damaged,
            or the report cannot be written.
        PolicyError: front.json cannot be read.
    """
    if out is None:
        folder.require_run()  # no lock is left where there is none
        with folder.locked():
            return _write_report(folder, folder.path)
    return _write_report(folder, make_folder(out))


def _write_report(folder: RunFolder, to: Path) -> Path:
    source = read_source(folder)
    if source.changed is not None:
        warnings.warn(source.changed, TokensearchWarning, stacklevel=2)
    with reading(RunError, str(folder.path)):
        page = _page(source)
        draw_front(source.run, source.front, source.trials, to / FRONT_PICTURE)
        if source.ledger is not None and not source.ledger.empty:
            draw_waterfall(source.ledger, to / WATERFALL_PICTURE)
            draw_flame(source.ledger, to / FLAME_PICTURE)
        if source.patches:
            save_patches(draw_answer_patches(source.run, source.patches), to / PATCHES_PICTURE)
        html = write_html(source, folder, to)
    write_whole(to / RESULTS, table_to_csv(results_table(source.run)))
    write_whole(to / folder.report.name, page)
    return html


def _page(source: ReportSource) -> str:
    run = source.run
    sections = (
        ("The answer", _answer(source)),
        ("Machine and cell", table_to_markdown(tables.facts_table(run))),
        ("The front", _front(source)),
        ("The schedule", _schedule(source)),
        ("Finalists and controls", _finalists(source)),
        ("Other ways to be as fast", _alternatives(run)),
        ("Where the time goes", _times(source)),
        ("Cautions", _bullets(source.cautions) or cautions_absent(run)),
        ("How the numbers came about", _origin(source)),
        ("How far to trust them", _bullets(limitation_lines(run))),
        ("To repeat it", f"```\n{text.plain(run.command)}\n```"),
    )
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections)
    title = markdown_text(f"{run.model.name} on {run.cell.machine.name}")
    return f"# {title}\n\n{body}\n"


def _answer(source: ReportSource) -> str:
    first, *rest = map(sentence, answer_in_words(source.run))
    return "\n\n".join([f"**{first}**", " ".join(rest)])


def _front(source: ReportSource) -> str:
    table = table_to_markdown(tables.front_table(source.front, source.run))
    picture = f"![{measure_of(source.run)} against latency]({FRONT_PICTURE})"
    dots = (*front_members(source.front, source.run.finished), *compared_dots(source.run.finished))
    misread = picture_notes(source.run, dots, trials=bool(source.trials))
    notes = map(sentence, front_row_notes(source.front, source.run))
    return "\n\n".join([front_note(source.run), table, *notes, picture, *misread])


def _schedule(source: ReportSource) -> str:
    answer = source.run.finished.answer
    if answer is None or not answer.policy.reduces:
        return "Every block keeps every token: no reduced policy is the answer."
    policy = answer.policy
    facts, steps = tables.schedule_line(policy), table_to_markdown(tables.schedule_table(policy))
    parts = [f"`{tables.token_strip(policy)}` {facts}.", steps]
    if source.patches:
        parts += [
            f"![patches that are left behind each block]({PATCHES_PICTURE})",
            _bullets(tuple(map(describe_patches, source.patches))),
        ]
    return "\n\n".join(parts)


def _finalists(source: ReportSource) -> str:
    timed = [finalist.comparison for finalist in source.run.finished.finalists]
    notes = map(sentence, Footnotes.of_run(source.run).lines(timed))
    table = table_to_markdown(tables.finalist_table(source.run))
    return "\n\n".join([finalists_note(source.run), table, *notes])


def _alternatives(run: RunDocument) -> str:
    if not run.finished.alternatives:
        return "None was measured."
    timed = [alternative.comparison for alternative in run.finished.alternatives]
    notes = map(sentence, Footnotes.of_run(run).lines(timed))
    return "\n\n".join([alternatives_note(run), table_to_markdown(alternative_table(run)), *notes])


def _times(source: ReportSource) -> str:
    if source.baseline is None:
        return "No profiles were taken in this run."
    note = profile_note(source.run, source.baseline)
    shown = _table_of_one(source.baseline) if source.ledger is None else _ledger(source.ledger)
    return shown if note is None else f"{note}\n\n{shown}"


def _table_of_one(baseline: Profile) -> str:
    words = "Only the baseline has a profile, as no policy is the answer."
    return f"{words}\n\n{table_to_markdown(tables.phase_table(baseline))}"


def _ledger(ledger: Ledger) -> str:
    words = _bullets(ledger_sentences(ledger))
    if ledger.empty:
        return words
    return (
        f"{words}\n\n{table_to_markdown(term_table(ledger))}\n\n"
        f"![from the baseline's pass to the answer's]({WATERFALL_PICTURE})\n\n"
        f"{table_to_markdown(block_table(ledger))}\n\n"
        f"{sentence(legend(ledger))} "
        f"Down to operators: [a differential flame graph]({FLAME_PICTURE})."
    )


def _origin(source: ReportSource) -> str:
    splits = table_to_markdown(split_table(source.run.data))
    return f"{_bullets(origin_lines(source.run))}\n\n{splits}"


def _bullets(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence(line)}" for line in lines)
