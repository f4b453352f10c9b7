"""What `run`, `evaluate` and `calibrate` print."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.records.measurements import Comparison, to_json
from tokensearch.records.policy_evaluation import CountSpread, PolicyEvaluation
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report import text
from tokensearch.report.run.notes import front_row_notes
from tokensearch.report.run.result import measure_in, name_of, read_evidence, run_cautions
from tokensearch.report.run.sentences import answer_sentences
from tokensearch.report.run.tables import (
    caution_lines,
    cell_line,
    change_of,
    closeness_of,
    front_table,
    ratio_of,
    token_strip,
)
from tokensearch.report.table import ReportTable, table_to_rich


def summary(
    run: RunDocument, front: PolicySet, *, folder: RunFolder | None = None
) -> RenderableType:
    """Return the answer in words, the front, cautions, and where the files are.

    Raises:
        RunError: The run has no result yet.
    """
    first, *rest = answer_sentences(run)
    parts: list[RenderableType] = [Text(first, style="bold"), _list_sentences(rest)]
    parts.append(table_to_rich(front_table(front, run)))
    if notes := front_row_notes(front, run):
        parts.append(Text("\n".join(notes)))
    if cautions := run_cautions(run):
        parts.append(caution_lines(cautions))
    if folder is not None:
        parts.append(_paths(folder))
    return Group(*parts)


def _list_sentences(sentences: Sequence[str]) -> Table:
    """Draw each sentence as an item of a list."""
    items = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        items.add_row("-", Text(sentence))
    return items


def unfinished_summary(run: RunDocument, folder: RunFolder) -> RenderableType:
    """Return how far a search without an answer has come, and how to go on with it."""
    asked = run.settings.goal
    lines = (
        f"the search of {run.model.name} for {asked} has not ended",
        f"{text.count(len(folder.read_trials()), 'trial')} so far in {folder.path}",
        "the same command goes on with it:",
        f"  {run.command}",
    )
    return Text("\n".join(map(text.plain, lines)), overflow="fold")


def _paths(folder: RunFolder) -> Text:
    # One path per line, and never cut: people copy them.
    paths = [("front", folder.front), ("report", folder.report), ("page", folder.html)]
    if folder.policy.exists():
        paths.insert(0, ("policy", folder.policy))
    lines = [f"{name:<8}{path}" for name, path in paths]
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")


def member_table(front: PolicySet) -> ReportTable:
    """The members of a front by itself, fastest first, as their first evidence has them."""
    members = [read_evidence(policy, policy.evidence[0]) for policy in front.policies]
    rows = [
        (
            name_of(member.policy, str(member.policy.provenance.get("origin", "sampler"))),
            token_strip(member.policy),
            text.ms(member.median_ms),
            ratio_of(member),
            text.percent_interval(member.accuracy),
            change_of(member),
            cell_line(member.policy.evidence[0].cell),
        )
        for member in members
    ]
    measure = measure_in(front.policies[0].evidence[0].accuracy)
    columns = ("policy", "tokens left", "latency", "of baseline", measure, "change, points", "cell")
    return ReportTable(columns, rows, numbers=frozenset({"latency"}))


def evaluation(evaluated: PolicyEvaluation) -> RenderableType:
    """Return one policy's figures beside the baseline's, and reasons to distrust them."""
    parts: list[RenderableType] = [
        Text(f"{text.plain(evaluated.policy)} on {cell_line(to_json(evaluated.cell))}"),
        table_to_rich(_figures(evaluated)),
    ]
    if cautions := evaluated.comparison.cautions:
        parts.append(caution_lines(cautions))
    return Group(*parts)


def evaluation_table(evaluations: Sequence[PolicyEvaluation]) -> ReportTable:
    """Return several policies of one model on the same images in one cell, a row each."""
    accuracies = [to_json(evaluated.accuracy) for evaluated in evaluations]
    measure = measure_in(accuracies[0])
    rows = [
        (
            evaluated.policy,
            text.percent_interval(evaluated.accuracy.interval),
            text.signed_points_interval(evaluated.paired.interval),
            *closeness_of(accuracy, measure).values(),
            text.ms(evaluated.comparison.candidate.median_ms),
            text.ratio_interval(evaluated.comparison.interval),
            evaluated.comparison.verdict,
            _caution_names(evaluated.comparison),
        )
        for evaluated, accuracy in zip(evaluations, accuracies, strict=True)
    ]
    closeness = tuple(closeness_of(accuracies[0], measure))
    columns = ("policy", measure, "change", *closeness, "latency", "of baseline", "verdict")
    return ReportTable((*columns, "cautions"), rows, numbers=frozenset({*closeness, "latency"}))


def _caution_names(comparison: Comparison) -> str:
    names = (caution.name.lower().replace("_", " ") for caution in comparison.cautions)
    return ", ".join(names) or text.NONE


def _spread_rows(spreads: Iterable[CountSpread]) -> Iterator[tuple[str, str]]:
    """Counts that differ from image to image, where they change from block to block."""
    before: Mapping[str, float] = {}
    for spread in spreads:
        figures = {name: getattr(spread, name) for name in ("mean", "p50", "p90", "max")}
        if figures != before and spread.max:
            shown = ", ".join(f"{name} {value:.0f}" for name, value in figures.items())
            yield f"after block {spread.block}", shown
        before = figures


def _figures(evaluated: PolicyEvaluation) -> ReportTable:
    accuracy, paired, comparison = evaluated.accuracy, evaluated.paired, evaluated.comparison
    candidate_ms = comparison.candidate.median_ms
    written = to_json(accuracy)
    named = measure_in(written)
    left = ", ".join(map(text.count, evaluated.patch_tokens_after_block))
    images = f"{text.count(accuracy.images, 'image')} of {evaluated.data}"
    change = text.signed_points_interval(paired.interval)
    rows = (
        ("tokens after block", left),
        *_spread_rows(evaluated.patch_tokens_by_image or ()),
        (named, f"{text.percent_interval(accuracy.interval)} on {images}"),
        ("change", f"{change} ({text.probability(paired.p_value)})"),
        *closeness_of(written, named).items(),
        ("latency", f"{text.ms(candidate_ms)}, {text.rate(evaluated.cell.batch, candidate_ms)}"),
        ("baseline", text.ms(comparison.baseline.median_ms)),
        ("ratio", text.ratio_interval(comparison.interval)),
        ("verdict", comparison.verdict),
    )
    return ReportTable(("figure", "value"), rows)


def calibration_table(
    policies: PolicySet,
    before: PolicySet,
    fresh: Mapping[str, Evidence],
    doubts: Mapping[str, str],
) -> ReportTable:
    """A row per policy: what was timed now, beside what was known before.

    before  the set that was timed anew
    fresh   what was timed now, by schedule hash
    doubts  why that confirms nothing, likewise; empty where it does
    """
    earlier = {policy.schedule_hash: policy.evidence[0] for policy in before.policies}
    columns = (
        "policy",
        "tokens left",
        "latency",
        "of baseline",
        "before",
        _right_answers(policies),
        "confirmed",
    )
    rows = [
        _row(policy, earlier[name], fresh[name], doubts[name])
        for policy in policies.policies
        for name in [policy.schedule_hash]
    ]
    return ReportTable(columns, rows, numbers=frozenset({"latency"}))


def _right_answers(policies: PolicySet) -> str:
    """Name the column of right answers, or of right embeddings."""
    accuracy = policies.policies[0].evidence[0].accuracy if policies.policies else {}
    return measure_in(accuracy) if "cosine" in accuracy else "right answers"


def _row(policy: Policy, earlier: Evidence, fresh: Evidence, doubt: str) -> tuple[str, ...]:
    kept = policy.evidence[0] != fresh
    before = policy.evidence[0] if kept else earlier
    here, there = (read_evidence(policy, evidence) for evidence in (fresh, before))
    return (
        name_of(policy, str(policy.provenance.get("origin", "sampler"))),
        token_strip(policy),
        text.ms(here.median_ms),
        text.NONE if here.ratio is None else text.ratio_interval(here.ratio),
        text.NONE if there.ratio is None else text.ratio_interval(there.ratio),
        text.percent_interval(here.accuracy),
        f"no ({doubt}){', earlier timing kept' if kept else ''}" if doubt else "yes",
    )
