"""What else would be as fast: whether it leaves a search of schedules without a point."""

from collections.abc import Iterable
from typing import Literal

from tokensearch.report import text
from tokensearch.report.run.result import Finalist, Rival, RunFindings
from tokensearch.report.table import ReportTable
from tokensearch.stats.interval import Interval

Standing = Literal["dominates", "matches", "behind"]


def rival_sentences(findings: RunFindings) -> tuple[str, ...]:
    """Say whether something simpler than a schedule does as well; nothing where none was tried."""
    rivals, answer = findings.rivals, findings.answer
    if not rivals:
        return ()
    if answer is None:
        return (_without_answer(findings),)
    standings = {one.name: standing(answer, one) for one in rivals}
    for wanted, said in (
        ("dominates", "The answer is dominated"),
        ("matches", "The answer is matched, as far as is proven"),
    ):
        found = [one for one in rivals if standings[one.name] == wanted]
        if found:
            return (f"{said}: {_clauses(found, answer, findings)}.",)
    return (f"No simpler way dominates the answer: {_clauses(rivals, answer, findings)}.",)


def standing(answer: Finalist, rival: Rival) -> Standing:
    """Whether a rival is proven better in accuracy or latency, and in neither proven worse."""
    lead = rival.lead.difference.value if rival.lead is not None and rival.lead.proven else 0.0
    apart = not answer.ratio.overlaps(rival.ratio)
    behind = rival.ratio.value - answer.ratio.value if apart else 0.0
    if lead > 0 or behind > 0:
        return "behind"
    return "dominates" if lead < 0 or behind < 0 else "matches"


def pace(one: Interval, other: Interval) -> str:
    """Whether the first ratio is that of a faster model, by intervals that do not overlap.

    >>> pace(Interval(0.45, 0.44, 0.46), Interval(0.5, 0.49, 0.51))
    'faster by 10.0 %'
    """
    if one.overlaps(other):
        return "as fast within the noise"
    change = one.value / other.value - 1
    return f"{'faster' if change < 0 else 'slower'} by {text.percent(abs(change))}"


def rival_table(findings: RunFindings) -> ReportTable:
    """The answer beside what else would be as fast."""
    measure, answer = findings.measure, findings.answer
    columns = ("model", "images", "latency", "of baseline", measure, "change", "answer's lead")
    own = [] if answer is None else [_answer_row(findings, answer)]
    rows = [*own, *(_row(one) for one in findings.rivals)]
    marked = frozenset(range(len(own)))
    return ReportTable(columns, rows, numbers=frozenset({"latency"}), marked=marked)


def _answer_row(findings: RunFindings, answer: Finalist) -> tuple[str, ...]:
    return (
        answer.name,
        f"{findings.run['cell']['resolution']} px",
        text.ms(answer.median_ms),
        text.ratio_interval(answer.ratio),
        text.percent_interval(answer.report),
        text.signed_points_interval(answer.difference),
        text.NONE,
    )


def _row(one: Rival) -> tuple[str, ...]:
    lead = text.NONE
    if one.lead is not None:
        proof = text.probability(one.lead.p_value)
        lead = f"{text.signed_points_interval(one.lead.difference)}, {proof}"
    return (
        one.title,
        f"{one.pixels} px",
        text.ms(one.median_ms),
        text.ratio_interval(one.ratio),
        text.percent_interval(one.report),
        text.signed_points_interval(one.difference),
        lead,
    )


def _clauses(rivals: Iterable[Rival], answer: Finalist, findings: RunFindings) -> str:
    return "; ".join(_clause(one, answer, findings.measure) for one in rivals)


def _clause(one: Rival, answer: Finalist, measure: str) -> str:
    """What a rival has more or less of than the answer, and how fast it is."""
    assert one.lead is not None  # there is an answer
    ahead = one.lead.difference
    mine = Interval(-ahead.value, -ahead.high, -ahead.low)
    figures = f"{text.signed_points_interval(mine)}, {text.probability(one.lead.p_value)}"
    more = f"{text.points(mine.value)} {'more' if mine.value >= 0 else 'less'} {measure}"
    proof = "" if one.lead.proven else ", which is not proven,"
    return (
        f"{one.title} ({_figures(one)}) has {more} on the same images ({figures}){proof} "
        f"and is {pace(one.ratio, answer.ratio)}"
    )


def _without_answer(findings: RunFindings) -> str:
    """Say which rivals meet a target that no schedule meets."""
    meeting = [one for one in findings.rivals if one.ratio.high <= _limit(findings, one)]
    named = [f"{one.title} ({_figures(one)})" for one in meeting or findings.rivals]
    if meeting:
        return f"Without a schedule the target is met by {text.listed(named)}."
    return f"It is not met for certain by {text.listed(named)} either."


def _limit(findings: RunFindings, one: Rival) -> float:
    """The target as a share of the baseline's latency, as timed beside `one`."""
    target = findings.target
    return target.limit_ms(batch=findings.batch, baseline_ms=one.baseline_ms) / one.baseline_ms


def _figures(one: Rival) -> str:
    return f"{text.ratio_interval(one.ratio)}, {text.percent_interval(one.report)}"
