"""What a reader should know before relying on the figures of a run."""

from tokensearch.records.comparability import BaselineDrift
from tokensearch.records.measurements import to_json
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import judges_embeddings, measure_of
from tokensearch.report.run.tables import cell_line
from tokensearch.stats.proportions import wilson

DEMO = "demo"
LEAST_WIDENING = 0.001  # that is worth saying; below it is rounding


def limitation_lines(run: RunDocument) -> tuple[str, ...]:
    """Return what a reader should know before relying on the figures."""
    lines = [
        f"Latencies belong to one cell: {cell_line(to_json(run.cell))}. "
        "Another machine, batch or number type wants its own run.",
        _precision(run),
        _drift(run),
        "Every interval covers its own figure at 95 %; of twenty, one may miss. Differences are "
        "taken before rounding.",
        "A latency is the forward pass alone, images ready on the device; loading and "
        "preprocessing are not in it.",
    ]
    if run.retargeted is not None:
        lines.insert(
            0,
            f"Only time was taken in this run: its schedules and their right answers are those of "
            f"{run.retargeted}, so it has no trials and no profiles of its own.",
        )
    if judges_embeddings(run):
        lines.append(_embedding_limits(run))
    elif not run.data.labelled:
        lines.append(
            "The images have no labels: agreement says how often the reduced model answers as the "
            "baseline, not how often either is right."
        )
    if (widened := _widening(run)) is not None:
        lines.append(widened)
    if run.settings.model == DEMO:
        lines.append(
            "The bundled model and its digit scenes are small: they show what this machine does "
            "with fewer tokens, and say nothing of what another model would lose."
        )
    return tuple(lines)


def _drift(run: RunDocument) -> str:
    """Say why rows are compared by ratios, and by how much the baseline's speed changed here."""
    said = (
        "Each row was timed beside the baseline: compare rows by their ratios, since milliseconds "
        "drift with the machine"
    )
    result = run.finished
    finalists = [finalist.comparison for finalist in result.finalists]
    before = [finalist.earlier for finalist in result.finalists if finalist.earlier is not None]
    others = [alternative.comparison for alternative in result.alternatives]
    drift = BaselineDrift([timed.baseline for timed in (*finalists, *before, *others)])
    moved = max(drift.moved, result.baseline_moved.finalists)  # that counts finalists not quoted
    if moved == 0:  # all were timed in one session: there is nothing to compare
        return f"{said}."
    return f"{said}; from session to session the baseline's moved by {text.percent(moved)}."


def _widening(run: RunDocument) -> str | None:
    """Say that intervals are wider than Wilson's, since images share what they show.

    None where they are not.
    """
    finalists = run.finished.finalists
    quoted = run.finished.answer or (finalists[0] if finalists else None)
    if quoted is None:
        return None
    score = quoted.report
    low, high = wilson(score.right, score.images, level=score.level)
    wider = 2 * score.interval.reach / (high - low) - 1
    if wider < LEAST_WIDENING:
        return None
    return (
        f"Images of a split share what they show, as digit scenes share digits, so they tell less "
        f"than as many unrelated ones: intervals of the {measure_of(run)} are Wilson intervals, "
        f"widened here by {text.percent(wider)}."
    )


def _embedding_limits(run: RunDocument) -> str:
    """Say what embeddings were compared with, and among how many images."""
    images = text.count(run.data.report.images)
    return (
        f"Embeddings are compared with the baseline's, not with what is true of the images. "
        f"Recall is among the {images} images of the split, both times by the same model; among "
        f"more images, nearest neighbours change more often."
    )


def _precision(run: RunDocument) -> str:
    answer = run.finished.answer
    split = run.data.report
    known = f"The report split has {text.count(split.images, 'image')}"
    if (split.of or 0) > split.images:
        known += f" of the {text.count(split.of or 0)} that were asked for"
    if answer is None:
        return f"{known}."
    reach = text.points(answer.report.interval.reach)
    paired = text.points(answer.paired.interval.reach)
    return (
        f"{known}: the answer's {measure_of(run)} is known to about {reach} either way, its "
        f"change from the baseline to about {paired}."
    )
