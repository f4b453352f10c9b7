"""What else would be as fast: whether it leaves a search of schedules without a point."""

from collections.abc import Iterable
from dataclasses import replace
from math import isclose
from typing import Literal

from tokensearch.records.measurements import PairedAccuracy
from tokensearch.records.run_result import Alternative, Finalist, RunDocument
from tokensearch.report import text
from tokensearch.report.run.footnotes import Footnotes
from tokensearch.report.run.result import measure_of, name_finalist, target_ratio_beside
from tokensearch.report.table import ReportTable
from tokensearch.stats.interval import Interval

Standing = Literal["dominates", "matches", "behind"]


def alternative_sentences(run: RunDocument) -> tuple[str, ...]:
    """Say whether something simpler than a schedule does as well; nothing where none was tried."""
    answer = run.finished.answer
    alternatives = [each for each in run.finished.alternatives if each.kind != "settings"]
    if not alternatives:
        return ()
    if answer is None:
        return (_without_answer(run),)
    for wanted, said in (
        ("dominates", "The answer is dominated"),
        ("matches", "Not significantly different from the answer"),
    ):
        so = [item for item in alternatives if standing(answer, item) == wanted]
        if so:
            return (f"{said}: {_clauses(so, answer, run)}.",)
    return (f"No simpler way dominates the answer: {_clauses(alternatives, answer, run)}.",)


def settings_sentences(run: RunDocument) -> tuple[str, ...]:
    """Say whether other settings beat the answer; nothing where none were tried."""
    answer = run.finished.answer
    tried = [each for each in run.finished.alternatives if each.kind == "settings"]
    if answer is None or len(tried) < 2:
        return ()
    again, *others = tried  # the answer comes first, timed in the same rounds as the others
    answer = replace(answer, comparison=again.comparison)
    better = [each for each in others if standing(answer, each) == "dominates"]
    if not better:
        return (f"None of {len(others)} rows in other settings beats it.",)
    best = min(better, key=lambda each: each.comparison.ratio)
    return (f"Better than the answer in other settings: {_clause(best, answer, measure_of(run))}.",)


def standing(answer: Finalist, alternative: Alternative) -> Standing:
    """Whether it is significantly better in accuracy or latency, and significantly worse in none.

    "behind" where it is worse in one.
    """
    lead = alternative.lead
    ahead = lead.difference if lead is not None and lead.significant else 0.0
    mine, theirs = answer.comparison.interval, alternative.comparison.interval
    slower = 0.0 if mine.overlaps(theirs) else theirs.value - mine.value
    if ahead > 0 or slower > 0:
        return "behind"
    return "dominates" if ahead < 0 or slower < 0 else "matches"


def title_of(alternative: Alternative) -> str:
    """What sentences call it."""
    name = text.plain(alternative.name)
    if alternative.kind == "settings":
        return name
    same = alternative.kind == "resolution"
    return f"the baseline at {name}" if same else f"the smaller model {name}"


def pace(ratio: Interval, other: Interval) -> str:
    """Whether the first ratio is that of a faster model, by intervals that do not overlap.

    >>> pace(Interval(0.45, 0.44, 0.46), Interval(0.5, 0.49, 0.51))
    'faster by 10.0 %'
    """
    if ratio.overlaps(other):
        return "as fast within the noise"
    change = ratio.value / other.value - 1
    return f"{'faster' if change < 0 else 'slower'} by {text.percent(abs(change))}"


def more_or_less(change: float, measure: str) -> str:
    """How much more of a measure the first of two has, as part of a sentence.

    >>> more_or_less(0.012, "accuracy"), more_or_less(-0.004, "accuracy"), more_or_less(0, "recall")
    ('1.2 points more accuracy', '0.4 points less accuracy', 'the same recall')
    """
    if text.points(change) == text.points(0):
        return f"the same {measure}"
    return f"{text.points(change)} {'more' if change > 0 else 'less'} {measure}"


def same_images(lead: PairedAccuracy, share: float, other: float) -> str:
    """Say that a lead is of the same images, and why it is not the difference of what is shown.

    share, other  right answers of both, which are shown rounded
    """
    exact, shown = 100 * lead.difference, round(100 * share, 1) - round(100 * other, 1)
    rounded = isclose(exact, 100 * (share - other)) and f"{exact:z.1f}" != f"{shown:z.1f}"
    return f"on the same images{', before rounding' if rounded else ''}"


def alternative_table(run: RunDocument) -> ReportTable:
    """The answer beside what else would be as fast."""
    answer, named = run.finished.answer, measure_of(run)
    columns = ("model", "images", "latency", "of baseline", named, "change", "answer's lead")
    own = (
        []
        if answer is None
        else [_answer_row(answer, text.image_size(run.cell.resolution, run.cell.columns))]
    )
    notes = Footnotes.of_run(run)
    rows = [*own, *(_row(alternative, notes) for alternative in run.finished.alternatives)]
    marked = frozenset(range(len(own)))
    return ReportTable(columns, rows, numbers=frozenset({"latency"}), marked=marked)


def _answer_row(answer: Finalist, size: str) -> tuple[str, ...]:
    return (name_finalist(answer), size, *_figures_of(answer), text.NONE)


def _row(alternative: Alternative, notes: Footnotes) -> tuple[str, ...]:
    lead = text.NONE
    if alternative.lead is not None:
        proof = text.probability(alternative.lead.p_value)
        lead = f"{text.signed_points_interval(alternative.lead.interval)}, {proof}"
    pixels = f"{alternative.pixels} px"
    title = f"{title_of(alternative)}{notes.mark(alternative.comparison)}"
    return (title, pixels, *_figures_of(alternative), lead)


def _figures_of(measured: Finalist | Alternative) -> tuple[str, ...]:
    return (
        text.ms(measured.comparison.candidate.median_ms),
        text.ratio_interval(measured.comparison.interval),
        text.percent_interval(measured.report.interval),
        text.signed_points_interval(measured.paired.interval),
    )


def _clauses(alternatives: Iterable[Alternative], answer: Finalist, run: RunDocument) -> str:
    return "; ".join(_clause(item, answer, measure_of(run)) for item in alternatives)


def _clause(alternative: Alternative, answer: Finalist, measure: str) -> str:
    """What it has more or less of than the answer, and how fast it is."""
    lead = alternative.lead
    assert lead is not None  # there is an answer
    mine = -lead.interval
    figures = f"{text.signed_points_interval(mine)}, {text.probability(lead.p_value)}"
    where = same_images(lead, answer.report.share, alternative.report.share)
    more = more_or_less(mine.value, measure)
    proof = "" if lead.significant else ", which is not significant,"
    return (
        f"{title_of(alternative)} ({_figures(alternative)}) has {more} {where} "
        f"({figures}){proof} and is "
        f"{pace(alternative.comparison.interval, answer.comparison.interval)}"
    )


def _without_answer(run: RunDocument) -> str:
    """Say what meets a target that no schedule meets."""
    alternatives = [each for each in run.finished.alternatives if each.kind != "settings"]
    meeting = [
        item
        for item in alternatives
        if item.comparison.high <= target_ratio_beside(run, item.comparison)
    ]
    named = [f"{title_of(item)} ({_figures(item)})" for item in meeting or alternatives]
    if meeting:
        return f"Without a schedule the target is met by {text.listed(named)}."
    return f"Nor is it certain that {text.listed(named)} would meet it."


def _figures(alternative: Alternative) -> str:
    ratio = text.ratio_interval(alternative.comparison.interval)
    return f"{ratio}, {text.percent_interval(alternative.report.interval)}"
