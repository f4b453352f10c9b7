"""The page: what it holds, rendered by a template, with every table as CSV beside it."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from tokensearch.costs import fit_staircase
from tokensearch.files import make_folder, refuse_link, write_whole
from tokensearch.policy import Policy
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import Finalist, RunDocument
from tokensearch.report import text
from tokensearch.report.diff.blocks import block_table
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.report.diff.waterfall import legend
from tokensearch.report.html.chart import Chart
from tokensearch.report.html.front import (
    TargetAnswer,
    answer_table,
    front_chart,
    front_points,
    shown_dots,
    target_answers,
)
from tokensearch.report.html.history import (
    history_chart,
    history_table,
    make_history,
    thin_out,
)
from tokensearch.report.html.staircase import staircase_chart, staircase_table
from tokensearch.report.html.strips import FallBar, Strip, changes_table, make_fall, make_strip
from tokensearch.report.html.tables import (
    PageTable,
    hash_table,
    tail_table,
)
from tokensearch.report.patches import (
    describe_patches,
    draw_answer_patches,
    encode_patches,
    patch_table,
)
from tokensearch.report.run.alternatives import alternative_table
from tokensearch.report.run.footnotes import Footnotes, cautions_absent
from tokensearch.report.run.front_dots import picture_notes
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
from tokensearch.report.run.result import is_answer, measure_of, name_finalist, name_of, origin_of
from tokensearch.report.run.sentences import answer_sentences
from tokensearch.report.run.source import ReportSource
from tokensearch.report.run.tables import (
    facts_table,
    finalist_table,
    front_table,
    model_line,
    phase_table,
)
from tokensearch.report.table import table_to_csv

TABLES = "report_data"  # folder of the CSV files


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template shows."""

    title: str
    model: str
    version: str
    outcome: str
    verdict: str
    sentences: tuple[str, ...]
    tiles: tuple[tuple[str, str, str], ...]  # label, figure, interval or remark
    charts: dict[str, Chart]
    strips: tuple[Strip, ...]
    answers: tuple[TargetAnswer, ...]
    asked: int  # index of the answer at the run's own target
    fall: tuple[FallBar, ...]
    lines: dict[str, tuple[str, ...]]  # sentences of a section
    tables: dict[str, PageTable]
    command: str
    picture: str  # the images under the answer as WebP in base64; empty where none were kept

    @property
    def looked_up(self) -> list[dict[str, object]]:
        """What the script looks up."""
        return [answer._asdict() for answer in self.answers]


def write_html(source: ReportSource, folder: RunFolder, to: Path) -> Path:
    """Write report.html and its tables; RunError where they cannot be written.

    to  folder for them
    """
    page = make_page(source, folder)
    tables = to / TABLES
    refuse_link(tables)
    make_folder(tables)
    for shown in page.tables.values():
        write_whole(tables / f"{shown.key}.csv", table_to_csv(shown.table))
    path = to / folder.html.name
    write_whole(path, render(page))
    return path


def render(page: Page) -> str:
    """Return the page as HTML: everything of a file's is escaped."""
    return make_environment().get_template("report.html.j2").render(page=page, folder=TABLES)


def make_environment() -> Environment:
    """Return what templates are rendered by, with the filters that they use."""
    environment = Environment(
        loader=PackageLoader("tokensearch.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = text.plain
    environment.filters["prose"] = _prose
    return environment


def _prose(words: str) -> Markup:
    """Return a sentence of ours with its code marked; what a file says in it is only text.

    >>> _prose("on `select` <b>")
    Markup('on <code>select</code> &lt;b&gt;')
    """
    said, *rest = str(escape(text.plain(words))).split("`")
    for index, part in enumerate(rest):
        said += f"{'</code>' if index % 2 else '<code>'}{part}"
    return Markup(said if len(rest) % 2 == 0 else escape(text.plain(words)))


def make_page(source: ReportSource, folder: RunFolder) -> Page:
    """Put together what the page shows of a finished run."""
    run, front = source.run, source.front
    trials, dots = thin_out(source.trials), shown_dots(run, front)
    strips = _strips(source)
    chart = front_chart(run, dots, trials, tuple(strips))
    answers = target_answers(run, front, chart, tuple(strips))
    first, *rest = answer_sentences(run)
    charts = {"front": chart, **_other_charts(source)}
    tables = (*_front_tables(source, answers), *_other_tables(source, folder))
    return Page(
        title=f"{text.plain(run.model.name)} on {text.plain(run.cell.machine.name)}",
        model=model_line(run.model),
        version=package_version(),
        outcome=run.finished.outcome,
        verdict=first,
        sentences=tuple(rest),
        tiles=_tiles(run),
        charts=charts,
        strips=tuple(strips.values()),
        answers=answers,
        asked=_asked(run, answers),
        fall=() if source.ledger is None or source.ledger.empty else make_fall(source.ledger),
        lines=_lines(source),
        tables={shown.key: shown for shown in tables},
        command=run.command,
        picture=_picture(source),
    )


def _asked(run: RunDocument, answers: tuple[TargetAnswer, ...]) -> int:
    """Return the index of the grid's target that is nearest to the run's own from below."""
    if run.finished.limit_ms is None:
        return len(answers) - 1
    share = run.finished.limit_ms / run.finished.baseline_ms + 1e-9
    return max(
        (i for i, answer in enumerate(answers) if float(answer.target[:-1]) <= share), default=0
    )


def _picture(source: ReportSource) -> str:
    if not source.patches:
        return ""
    picture = draw_answer_patches(source.run, source.patches)
    return b64encode(encode_patches(picture, "WEBP")).decode()


def _tiles(run: RunDocument) -> tuple[tuple[str, str, str], ...]:
    answer = run.finished.answer
    if answer is None:
        return ()
    return (*_latency_tiles(answer, run), *_accuracy_tiles(answer, run))


def _latency_tiles(answer: Finalist, run: RunDocument) -> Iterator[tuple[str, str, str]]:
    timed = answer.comparison
    ratio, _, reach = text.ratio_interval(timed.interval).partition(" ")
    own_ms, baseline_ms = timed.candidate.median_ms, timed.baseline.median_ms
    batch = run.cell.batch
    yield "latency", text.ms(own_ms), f"baseline {text.ms(baseline_ms)}"
    yield "of baseline", ratio, reach
    yield "throughput", text.rate(batch, own_ms), f"baseline {text.rate(batch, baseline_ms)}"


def _accuracy_tiles(answer: Finalist, run: RunDocument) -> Iterator[tuple[str, str, str]]:
    share, _, reach = text.percent_interval(answer.report.interval).partition(" [")
    yield measure_of(run), share, f"[{reach}"
    if answer.policy.reduces:
        change, _, reach = text.signed_points_interval(answer.paired.interval).partition(" [")
        proof = text.probability(answer.paired.p_value)
        yield "change", change, f"[{reach}, {proof}"


def _strips(source: ReportSource) -> dict[str, Strip]:
    """Return the schedules of the front and of all finalists, by hash; the answer's first."""
    result = source.run.finished
    named: dict[str, tuple[Policy, str]] = {}
    for finalist in sorted(result.finalists, key=lambda f: not is_answer(f.policy, result)):
        named[finalist.schedule_hash] = finalist.policy, name_finalist(finalist)
    for policy in source.front.policies:
        named.setdefault(policy.schedule_hash, (policy, name_of(policy, origin_of(policy, result))))
    return {
        digest: make_strip(policy, name, answer=is_answer(policy, result))
        for digest, (policy, name) in named.items()
    }


def _other_charts(source: ReportSource) -> dict[str, Chart]:
    charts = {}
    if (history := history_chart(make_history(source.run, source.trials))) is not None:
        charts["history"] = history
    if source.costs is not None:
        charts["staircase"] = staircase_chart(source.costs, fit_staircase(source.costs))
    return charts


def _front_tables(source: ReportSource, answers: tuple[TargetAnswer, ...]) -> Iterator[PageTable]:
    run, front = source.run, source.front
    yield PageTable("front", "The front", front_table(front, run))
    yield PageTable(
        "front_points", "Points of the picture", front_points(run, shown_dots(run, front))
    )
    yield PageTable("targets", "Answers by target", answer_table(answers))
    yield PageTable("finalists", "Finalists and controls", finalist_table(run))
    yield PageTable("latencies", "Throughput and slow passes", tail_table(run))
    if run.finished.alternatives:
        yield PageTable("alternatives", "Other ways to be as fast", alternative_table(run))


def _other_tables(source: ReportSource, folder: RunFolder) -> Iterator[PageTable]:
    yield PageTable("machine", "Machine and software", facts_table(source.run))
    yield from _time_tables(source)
    if source.costs is not None:
        stairs = fit_staircase(source.costs)
        yield PageTable("staircase", "What a block costs", staircase_table(stairs))
    if source.trials:
        history = make_history(source.run, source.trials)
        yield PageTable("history", "The search, trial by trial", history_table(history))
    if source.patches:
        yield PageTable("patches", "Tokens by image and block", patch_table(source.patches))
    yield PageTable("splits", "Images", split_table(source.run.data))
    yield PageTable("hashes", "Files", hash_table(folder))


def _time_tables(source: ReportSource) -> Iterator[PageTable]:
    if source.ledger is not None and not source.ledger.empty:
        yield PageTable("waterfall", "Terms of the ledger", changes_table(source.ledger))
        yield PageTable("blocks", "By block", block_table(source.ledger))
    if source.baseline is not None and source.ledger is None:
        yield PageTable("phases", "The baseline by phase", phase_table(source.baseline))


def _lines(source: ReportSource) -> dict[str, tuple[str, ...]]:
    run, ledger = source.run, source.ledger
    profiled = profile_note(run, source.baseline)
    timed = [finalist.comparison for finalist in run.finished.finalists]
    others = [alternative.comparison for alternative in run.finished.alternatives]
    notes = Footnotes.of_run(run)
    return {
        "front": (front_note(run), *front_row_notes(source.front, run)),
        "picture": picture_notes(run, shown_dots(run, source.front), trials=bool(source.trials)),
        "finalists": (finalists_note(run), *notes.lines(timed)),
        "alternatives": (alternatives_note(run), *notes.lines(others)) if others else (),
        "profiled": () if profiled is None else (profiled,),
        "times": () if ledger is None else tuple(ledger_sentences(ledger)),
        "legend": () if ledger is None or ledger.empty else (legend(ledger),),
        "staircase": () if source.costs is None else fit_staircase(source.costs).sentences[:5],
        "cautions": source.cautions,
        "no_cautions": () if source.cautions else (cautions_absent(run),),
        "patches": tuple(map(describe_patches, source.patches)),
        "origin": origin_lines(run),
        "limits": limitation_lines(run),
    }


def package_version() -> str:
    """Of this program; a tree that is not installed has none."""
    try:
        return version("tokensearch")
    except PackageNotFoundError:
        return "(not installed)"
