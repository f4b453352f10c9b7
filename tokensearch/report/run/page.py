"""The hardware tuning report of a run folder, as a page of Markdown with its pictures."""

import warnings
from dataclasses import dataclass

from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.errors import RunError, TokensearchWarning
from tokensearch.files import write_whole
from tokensearch.policy import PolicySet, load_set
from tokensearch.records.measurements import Trial
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunData, RunDocument
from tokensearch.report import text
from tokensearch.report.diff.blocks import block_table
from tokensearch.report.diff.flame_graph import draw_flame
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.report.diff.waterfall import draw_waterfall, legend, term_table
from tokensearch.report.phases import read_profile
from tokensearch.report.run import tables
from tokensearch.report.run.alternatives import alternative_table
from tokensearch.report.run.contradictions import contradiction
from tokensearch.report.run.footnotes import Footnotes
from tokensearch.report.run.front_plot import draw_front
from tokensearch.report.run.result import judges_embeddings, measure_of, reading, run_cautions
from tokensearch.report.run.sentences import answer_sentences as answer_in_words
from tokensearch.report.run.sentences import limitation_lines
from tokensearch.report.table import ReportTable, markdown_text, sentence, table_to_markdown

FRONT_PICTURE, WATERFALL_PICTURE, FLAME_PICTURE = "front.png", "waterfall.png", "flame.svg"


@dataclass(frozen=True, slots=True)
class _Source:
    """Everything the page is made of."""

    run: RunDocument
    front: PolicySet
    trials: tuple[Trial, ...]
    baseline: Profile | None
    ledger: Ledger | None  # None without an answer


def write_report(folder: RunFolder) -> None:
    """Write report.md and its pictures into a finished run's folder.

    Raises:
        RunError: The folder holds no run, the search has not ended, or a file is damaged.
        PolicyError: front.json cannot be read.
    """
    source = _read(folder)
    if (changed := contradiction(source.front, source.run)) is not None:
        warnings.warn(changed, TokensearchWarning, stacklevel=2)
    with reading(RunError, str(folder.path)):
        page = _page(source)
        draw_front(source.run, source.front, source.trials, folder.path / FRONT_PICTURE)
        if source.ledger is not None and not source.ledger.empty:
            draw_waterfall(source.ledger, folder.path / WATERFALL_PICTURE)
            draw_flame(source.ledger, folder.path / FLAME_PICTURE)
    write_whole(folder.report, page)


def _read(folder: RunFolder) -> _Source:
    run = folder.require_run()
    try:
        _ = run.finished
    except RunError as error:
        error.add_note(f"in {folder.path}")
        raise
    baseline, answer = (
        read_profile(folder.profiles / f"{name}.json") for name in ("baseline", "answer")
    )
    return _Source(
        run=run,
        front=load_set(folder.front),
        trials=folder.read_trials(),
        baseline=baseline,
        ledger=None if baseline is None or answer is None else make_ledger(baseline, answer),
    )


def _page(source: _Source) -> str:
    model, cell = source.run.model.name, source.run.cell
    sections = (
        ("The answer", _answer(source)),
        ("Machine and cell", table_to_markdown(tables.cell_table(cell))),
        ("The front", _front(source)),
        ("The schedule", _schedule(source)),
        ("Finalists and controls", _finalists(source)),
        ("Other ways to be as fast", _alternatives(source.run)),
        ("Where the time goes", _times(source)),
        ("Cautions", _bullets(_cautions(source)) or "None was raised."),
        ("How the numbers came about", _origin(source)),
        ("How far to trust them", _bullets(limitation_lines(source.run))),
        ("To repeat it", f"```\n{text.plain(source.run.command)}\n```"),
    )
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections)
    title = markdown_text(f"{model} on {cell.machine.name}")
    return f"# {title}\n\n{body}\n"


def _answer(source: _Source) -> str:
    first, *rest = map(sentence, answer_in_words(source.run))
    return "\n\n".join([f"**{first}**", " ".join(rest)])


def _front(source: _Source) -> str:
    patches = text.count(source.run.model.patch_tokens)
    note = (
        "Fastest first; the answer is bold. Figures are of the `report` split, with 95 % "
        "intervals; members were chosen on `select`, so that one may look out of order here. "
        f"A bar per block shows the patch tokens left of {patches}. "
        f"Change is of the {measure_of(source.run)}, "
        "from the baseline on the same images."
    )
    table = table_to_markdown(tables.front_table(source.front, source.run))
    picture = f"![{measure_of(source.run)} against latency]({FRONT_PICTURE})"
    notes = map(sentence, tables.front_notes(source.front, source.run))
    return "\n\n".join([note, table, *notes, picture])


def _schedule(source: _Source) -> str:
    answer = source.run.finished.answer
    if answer is None or not answer.policy.reduces:
        return "Every block keeps every token: no reduced policy is the answer."
    policy = answer.policy
    facts, steps = tables.schedule_line(policy), table_to_markdown(tables.schedule_table(policy))
    return f"`{tables.token_strip(policy)}` {facts}.\n\n{steps}"


def _finalists(source: _Source) -> str:
    note = (
        "Each was timed afresh, in turn with the baseline; the answer and what it is compared with "
        "once more after the choice, in one session, which is quoted. Answer and front were chosen "
        f"on `select`; `report` had no part in it. {_meaning(source.run)} The verdict "
        "is what the ratio's whole interval proves: faster or "
        "slower where it leaves out 1, same where it stays close to 1, else ambiguous. "
        + tables.random_note()
    )
    timed = [finalist.comparison for finalist in source.run.finished.finalists]
    notes = map(sentence, Footnotes.of_run(source.run).lines(timed))
    return "\n\n".join([note, table_to_markdown(tables.finalist_table(source.run)), *notes])


def _meaning(run: RunDocument) -> str:
    """Say what the columns of a finalist's distance from the baseline are."""
    if not judges_embeddings(run):
        return "KL is the mean divergence from the baseline."
    said = (
        "Cosine is the mean similarity to the baseline's embedding of the same image"
        "{patches}; recall@1 is the share of images whose nearest neighbour in the split is the "
        "one that they have in the baseline, recall@10 how many of its ten nearest stay among "
        "them."
    ).format(patches=" patch by patch" if _is_dense(run) else "")
    if run.data.labelled:
        said += (
            " k-NN and probe tell classes by the baseline's embeddings of `search`, of which "
            "neither is told its own label."
        )
    return said


def _is_dense(run: RunDocument) -> bool:
    finalists = run.finished.finalists
    return bool(finalists) and finalists[0].report.kind == "dense"


def _alternatives(run: RunDocument) -> str:
    if not run.finished.alternatives:
        return "None was measured."
    note = (
        "Models that drop no tokens, timed side by side with the answer: the same model on the "
        "largest images that meet the target by the clock, and a smaller model if "
        "one was given (`--smaller`). Both see the same crops, resized; nothing is trained anew. "
        "Beside them the baseline and the answer in other settings, if any were given "
        "(`--resolutions`, `--dtypes`, `--backends`). "
        "The lead is that of the answer, on the same images."
    )
    if not run.data.labelled and not judges_embeddings(run):
        note += " Without labels, another model's own right answers count as mistakes."
    timed = [alternative.comparison for alternative in run.finished.alternatives]
    notes = map(sentence, Footnotes.of_run(run).lines(timed))
    return "\n\n".join([note, table_to_markdown(alternative_table(run)), *notes])


def _times(source: _Source) -> str:
    if source.baseline is None:
        return "No profiles were taken in this run."
    backend = source.run.settings.backend
    eager = f"Profiled passes are eager; every latency is of {backend} passes.\n\n"
    shown = _table_of_one(source.baseline) if source.ledger is None else _ledger(source.ledger)
    return shown if source.baseline.cell.backend == backend else f"{eager}{shown}"


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


def _origin(source: _Source) -> str:
    run, settings = source.run, source.run.settings
    labels = "with" if run.data.labelled else "without"
    lines = (
        *(_searched(run) if run.retargeted is None else ()),
        f"Chosen by {settings.objective}. Sampler {settings.sampler} with seed {settings.seed}; "
        f"space {settings.space} ({text.short(settings.space_digest)}).",
        f"Weights {text.short(run.model.weights or 'unknown')}; images: {run.data.name}, {labels} "
        f"labels.",
    )
    return f"{_bullets(lines)}\n\n{table_to_markdown(_splits(run.data))}"


def _searched(run: RunDocument) -> tuple[str, ...]:
    """What became of the proposals, and how long it took."""
    result, budget = run.finished, run.budget
    trials, forecast = result.trials, result.forecast
    allowed = [
        *([] if budget.trials is None else [text.count(budget.trials, "trial")]),
        *([] if budget.seconds is None else [text.duration(budget.seconds)]),
    ]
    return (
        f"{text.count(trials.complete, 'trial')} ran on every image. Stopped, likely worse than "
        f"something faster: {text.count(trials.raced)}; predicted too slow and not run: "
        f"{text.count(trials.out_of_reach)}; proposed again and not repeated: "
        f"{text.count(trials.duplicate)}.",
        f"Predicted latencies are off by {text.percent(forecast.error)} on average, by "
        f"{text.count(forecast.timed, 'timing')} of this run.",
        f"The search took {text.duration(result.search_seconds)}, the run "
        f"{text.duration(result.seconds)} in all; allowed were {text.listed(allowed)}.",
    )


def _cautions(source: _Source) -> tuple[str, ...]:
    """What the run raised, and whether its front has been changed since."""
    changed = contradiction(source.front, source.run)
    return (*run_cautions(source.run), *(() if changed is None else (changed,)))


def _splits(data: RunData) -> ReportTable:
    purposes = {"search": "optimised on", "select": "chosen on", "report": "quoted"}
    rows = [
        (name, purposes.get(name, ""), text.count(split.images), text.short(split.digest))
        for name, split in data.splits.items()
    ]
    return ReportTable(("split", "use", "images", "digest"), rows, numbers=frozenset({"images"}))


def _bullets(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence(line)}" for line in lines)
