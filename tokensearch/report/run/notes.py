"""What reports say beside their tables: one wording for Markdown and HTML."""

from tokensearch.policy import PolicySet, is_control
from tokensearch.policy.answer import MARGIN, TOLERANCE_NATS
from tokensearch.records.profile import Profile
from tokensearch.records.run_result import RunData, RunDocument
from tokensearch.report import text
from tokensearch.report.run import tables
from tokensearch.report.run.footnotes import Footnotes
from tokensearch.report.run.result import (
    alike_as,
    judges_embeddings,
    measure_of,
    name_finalist,
)
from tokensearch.report.table import ReportTable


def front_note(run: RunDocument) -> str:
    """Say what the columns of the front are."""
    patches = text.count(run.model.patch_tokens)
    return (
        "Fastest first; the answer is bold. Figures are of the `report` split, with 95 % "
        "intervals; members were chosen on `select`, so that one may look out of order here. "
        f"A bar per block shows the patch tokens left of {patches}. "
        f"Change is of the {measure_of(run)}, "
        "from the baseline on the same images."
    )


def front_row_notes(front: PolicySet, run: RunDocument) -> tuple[str, ...]:
    """Say what the marks of the front's rows mean."""
    shown = (run.finished.finalist(policy.schedule_hash) for policy in front.policies)
    rows = [finalist.comparison for finalist in shown if finalist is not None]
    said = (as_good_note(run), baseline_note(run), dominated_note(front, run))
    return (*(note for note in said if note is not None), *Footnotes.of_run(run).lines(rows))


def dominated_note(front: PolicySet, run: RunDocument) -> str | None:
    """Name the confirmed policies that the front leaves out; None where it has all."""
    members = {policy.schedule_hash for policy in front.policies}
    left = [
        name_finalist(finalist)
        for finalist in run.finished.finalists
        if finalist.schedule_hash not in members and not is_control(finalist.origin)
    ]
    if not left:
        return None
    verb = "is" if len(left) == 1 else "are"
    return (
        f"{text.listed(left)} {verb} confirmed too, but left out of the table: a row of the "
        f"table is as fast and as good on select. The finalists' table of the report has all."
    )


def as_good_note(run: RunDocument) -> str | None:
    """Say what the mark of the deciding column means; None where there is none."""
    if len(run.finished.as_good or ()) < 2:
        return None
    differs = (
        f"it diverges by at most {TOLERANCE_NATS:g} nats more, and is not significantly less often "
        "right"
    )
    if judges_embeddings(run):
        differs = (
            f"its cosine is lower by at most {TOLERANCE_NATS:g}, and its {measure_of(run)} is not "
            "significantly lower"
        )
    return (
        f"{tables.AS_GOOD} {alike_as(run)} as the best that meets the target: {differs} by over "
        f"{text.points(MARGIN)}."
    )


def baseline_note(run: RunDocument) -> str | None:
    """Say why the baseline has two latencies; None where it has one.

    Its own row was timed like that of any policy. The answer is quoted beside the baseline of its
    own session.
    """
    result = run.finished
    baseline = next((f for f in result.finalists if not f.policy.reduces), None)
    if result.answer is None or baseline is None:
        return None
    own, beside = (
        text.ms(ms)
        for ms in (
            baseline.comparison.candidate.median_ms,
            result.answer.comparison.baseline.median_ms,
        )
    )
    if own == beside:
        return None
    return f"The baseline was timed as policies are: {own}. Beside the answer it took {beside}."


def finalists_note(run: RunDocument) -> str:
    """Say how finalists were judged."""
    return (
        "Each was timed afresh, in turn with the baseline; the answer and what it is compared with "
        "once more after the choice, in one session, which is quoted. Answer and front were chosen "
        f"on `select`; `report` had no part in it. {_meaning(run)} The verdict "
        "is what the ratio's whole interval proves: faster or "
        "slower where it leaves out 1, same where it stays close to 1, else ambiguous. "
        + tables.random_note()
    )


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


def alternatives_note(run: RunDocument) -> str:
    """Say what the alternatives are; there are some."""
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
    return note


def profile_note(run: RunDocument, baseline: Profile | None) -> str | None:
    """Say that profiled passes are others than timed ones; None where they are not."""
    backend = run.settings.backend
    if baseline is None or baseline.cell.backend == backend:
        return None
    return f"Profiled passes are eager; every latency is of {backend} passes."


def origin_lines(run: RunDocument) -> tuple[str, ...]:
    """Say how the figures came about."""
    settings = run.settings
    labels = "with" if run.data.labelled else "without"
    return (
        *(_searched(run) if run.retargeted is None else ()),
        f"Chosen by {settings.objective}. Sampler {settings.sampler} with seed {settings.seed}; "
        f"space {settings.space} ({text.short(settings.space_digest)}).",
        f"Weights {text.short(run.model.weights or 'unknown')}; images: {run.data.name}, {labels} "
        f"labels.",
    )


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


def split_table(data: RunData) -> ReportTable:
    """Which images were used for what."""
    purposes = {"search": "optimised on", "select": "chosen on", "report": "quoted"}
    rows = [
        (name, purposes.get(name, ""), text.count(split.images), text.short(split.digest))
        for name, split in data.splits.items()
    ]
    return ReportTable(("split", "use", "images", "digest"), rows, numbers=frozenset({"images"}))
