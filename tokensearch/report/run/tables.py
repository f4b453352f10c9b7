"""The tables of reports: one function each, from what was found to a grid of text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from tokensearch.errors import PolicyError
from tokensearch.policy import (
    RANDOM,
    Merger,
    ModelSpec,
    Objective,
    Policy,
    PolicySet,
    Pool,
    Prune,
    PruneOrPool,
    Step,
    Threshold,
    block_macs,
    is_control,
    mac_share,
    objective_value,
)
from tokensearch.records.measurements import Cell, to_json
from tokensearch.records.profile import PHASES, Profile
from tokensearch.records.run_result import Finalist, RunDocument, RunResult
from tokensearch.report import text
from tokensearch.report.phases import PHASE_NAMES, groups
from tokensearch.report.run.footnotes import Footnotes
from tokensearch.report.run.result import (
    RECALL,
    RIGHT_BY,
    SEARCHED,
    EvidenceFigures,
    is_answer,
    measure_of,
    name_finalist,
    name_of,
    origin_of,
    read_evidence,
    reading,
)
from tokensearch.report.table import ReportTable

AS_GOOD = "≈"  # before the deciding figure of what cannot be told apart from the best


def front_table(front: PolicySet, run: RunDocument) -> ReportTable:
    """Every member of the front, fastest first; the answer stands out."""
    members = [read_evidence(policy, policy.evidence[0]) for policy in front.policies]
    notes = Footnotes.of_run(run)
    rows = [_front_row(member, run.finished, notes) for member in members]
    deciding = deciding_name(run.settings.objective)
    columns = ("policy", "tokens left", "latency", "of baseline", measure_of(run))
    marked = _marked((member.policy for member in members), run.finished)
    return ReportTable(
        (*columns, "change, points", deciding),
        rows,
        numbers=frozenset({"latency", deciding}),
        marked=marked,
    )


def _front_row(member: EvidenceFigures, result: RunResult, notes: Footnotes) -> tuple[str, ...]:
    finalist = result.finalist(member.policy.schedule_hash)
    marks = "" if finalist is None else notes.mark(finalist.comparison)
    return (
        f"{name_of(member.policy, origin_of(member.policy, result))}{marks}",
        token_strip(member.policy),
        text.ms(member.median_ms),
        ratio_of(member),
        text.percent_interval(member.accuracy),
        change_of(member),
        _deciding(member.policy, result),
    )


def deciding_name(objective: Objective, split: str = "select") -> str:
    """Name the column of what decides between policies that meet the target.

    >>> deciding_name("kl")
    'KL (select)'
    """
    names = {"kl": "KL", "ce": "cross-entropy", "top1": "accuracy", "agreement": "agreement"}
    names |= {"cosine": "cosine", "knn": RIGHT_BY["knn"], "probe": RIGHT_BY["probe"]}
    return f"{names[objective]} ({split})"


def _deciding(policy: Policy, result: RunResult) -> str:
    """What the objective is on `select`, marked where it is as good as the best."""
    evidence = policy.evidence[0].extra
    if "select" not in evidence or "objective" not in evidence:
        return text.NONE
    value = objective_value(evidence["select"], evidence["objective"])
    match evidence["objective"]:
        case "kl" | "ce":
            shown = text.bare_nats(max(0.0, -value))
        case "cosine":
            shown = text.cosine(1.0 + value)
        case _:
            shown = text.percent(value)
    return f"{AS_GOOD} {shown}" if policy.schedule_hash in (result.as_good or ()) else shown


def _marked(policies: Iterable[Policy], result: RunResult) -> frozenset[int]:
    """Which row is that of the answer."""
    return frozenset(row for row, policy in enumerate(policies) if is_answer(policy, result))


def finalist_table(run: RunDocument) -> ReportTable:
    """Every finalist and control with all its figures."""
    measure, finalists = measure_of(run), run.finished.finalists
    closeness = tuple(closeness_of(to_json(finalists[0].report), measure)) if finalists else ()
    columns = (
        "finalist",
        "kind",
        f"{measure} (select)",
        f"{measure} (report)",
        *closeness,
        "latency",
        "of baseline",
        "verdict",
        "on the front",
    )
    notes = Footnotes.of_run(run)
    rows = [_finalist_row(finalist, measure, notes) for finalist in finalists]
    marked = _marked((finalist.policy for finalist in finalists), run.finished)
    numbers = frozenset({*closeness, "latency"})
    return ReportTable(columns, rows, numbers=numbers, marked=marked)


def closeness_of(accuracy: Mapping[str, Any], measure: str) -> dict[str, str]:
    """How close a policy stays to the baseline, beside what its run measures: figures by name.

    accuracy  as files hold it
    """
    if "cosine" not in accuracy:
        return {"KL": text.nats(accuracy["kl"])}
    shares = {RECALL: "recall_at_1", "recall@10": "recall_at_10"}
    shares |= {RIGHT_BY[key]: key for key in ("knn", "probe") if key in accuracy}
    return {
        "cosine": text.cosine(accuracy["cosine"]),
        **{n: text.percent(accuracy[key]) for n, key in shares.items() if n != measure},
    }


def _finalist_row(finalist: Finalist, measure: str, notes: Footnotes) -> tuple[str, ...]:
    return (
        f"{name_finalist(finalist)}{notes.mark(finalist.comparison)}",
        kind_of(finalist),
        text.percent_interval(finalist.select.interval),
        text.percent_interval(finalist.report.interval),
        *closeness_of(to_json(finalist.report), measure).values(),
        text.ms(finalist.comparison.candidate.median_ms),
        text.ratio_interval(finalist.comparison.interval),
        finalist.comparison.verdict,
        "yes" if finalist.on_front else "no",
    )


def kind_of(finalist: Finalist) -> str:
    """Whether a finalist was found, drawn, published, or is there to compare with."""
    if is_control(finalist.origin):
        return "control"
    return SEARCHED.get(finalist.origin, "published")


def schedule_table(policy: Policy) -> ReportTable:
    """What every block does with its tokens, and what it then costs."""
    macs, full = block_macs(policy), block_macs(Policy(policy.model))
    counts = policy.patch_tokens_after_block
    rows = [
        (
            str(block),
            " then ".join(step_name(step) for step in policy.steps_of(block))
            or _last(policy, block),
            " then ".join(_choice(step) for step in policy.steps_of(block)),
            text.count(counts[block]),
            text.percent(counts[block] / policy.model.patch_tokens),
            text.percent(macs[block] / full[block]),
        )
        for block in range(policy.model.blocks)
    ]
    columns = ("block", "step", "by", "patch tokens", "kept", "MACs")
    return ReportTable(columns, rows, numbers=frozenset({"block", "patch tokens", "kept", "MACs"}))


def step_name(step: Step) -> str:
    """A step as people say it."""
    count = f"{'about ' if step.op == 'threshold' else ''}{text.count(step.keep)}"
    when = " at the end" if step.at == "block_end" else ""
    return f"{step.op.replace('_', ' ')} to {count}{when}"


def _choice(step: Step) -> str:
    match step:
        case Prune(score=score, rest=rest):
            return score.replace("_", " ") + _REST_NOTES[rest]
        case Pool(match=match_, score=score, margin=margin, metric=metric):
            parts = (
                match_,
                score and score.replace("_", " "),
                None if margin is None else f"margin {margin:g}",
                None if metric == "keys" else f"{metric} metric",
            )
            return ", ".join(part for part in parts if part)
        case PruneOrPool(score=score, threshold=threshold):
            return f"variance of {score.replace('_', ' ')}, {threshold:g}"
        case Threshold(score=score, threshold=threshold):
            return f"{score.replace('_', ' ')} above {threshold:.3g}"
        case Merger(values=values, scale=scale):
            return f"learned queries, {values} tokens, scale {scale:g}"


_REST_NOTES = {"drop": "", "fuse": ", rest fused", "mean": ", rest averaged"}


def _last(policy: Policy, block: int) -> str:
    skips = policy.last_block == "prefix_only" and block == policy.model.blocks - 1
    return "prefix tokens alone" if skips else "keep"


def token_strip(policy: Policy) -> str:
    """One bar per block, as high as the share of patch tokens that it hands on."""
    return text.strip(policy.patch_tokens_after_block, policy.model.patch_tokens)


def evidence_table(policy: Policy, measure: str) -> ReportTable:
    """What was measured of a policy, a row per cell."""
    rows = [_evidence_row(read_evidence(policy, item), item.cell) for item in policy.evidence]
    columns = ("cell", "latency", "of baseline", measure, "confirmed")
    return ReportTable(columns, rows, numbers=frozenset({"latency"}))


def _evidence_row(figures: EvidenceFigures, cell: Mapping[str, Any]) -> tuple[str, ...]:
    with reading(PolicyError, "evidence"):
        where = cell_line(cell)
    return (
        where,
        text.ms(figures.median_ms),
        ratio_of(figures),
        text.percent_interval(figures.accuracy),
        "yes" if figures.confirmed else "no",
    )


def cell_line(cell: Mapping[str, Any]) -> str:
    """A cell in one line; what a file does not say is left out."""
    machine = cell.get("machine", {})
    parts = (
        machine.get("name", cell.get("device")),
        cell.get("dtype"),
        None if "batch" not in cell else f"batch {cell['batch']}",
        None
        if "resolution" not in cell
        else text.image_size(cell["resolution"], cell.get("columns")),
        cell.get("backend"),
    )
    return ", ".join(text.plain(str(part)) for part in parts if part is not None)


def cell_table(cell: Cell) -> ReportTable:
    """The machine and everything else that the latencies belong to."""
    machine = cell.machine
    rows = [
        ("machine", machine.name),
        ("system", machine.system),
        ("device", cell.device),
        ("threads", f"{cell.threads} of {text.count(machine.cores, 'core')}"),
        ("number type", cell.dtype),
        ("batch", text.count(cell.batch, "image")),
        ("resolution", text.image_size(cell.resolution, cell.columns)),
        ("backend", cell.backend),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.software)),
    ]
    return ReportTable(("what", "value"), rows)


def facts_table(run: RunDocument) -> ReportTable:
    """The cell of a run, and when, by what program and on which computer it was made."""
    cell, made = cell_table(run.cell), run.environment
    if made is None:
        return ReportTable(cell.columns, [*cell.rows, ("date, program and host", "not recorded")])
    own = [
        ("memory", text.NONE if made.memory_bytes is None else text.gigabytes(made.memory_bytes)),
        ("host", made.host),
        ("program", made.program),
        ("date", text.plain(made.started).replace("T", " ").replace("+00:00", " UTC")),
    ]
    if made.gpu_memory_bytes is not None:
        own.insert(1, ("memory of the GPU", text.gigabytes(made.gpu_memory_bytes)))
    return ReportTable(cell.columns, [*cell.rows, *own])


def phase_table(profile: Profile) -> ReportTable:
    """Time of one profile by phase and group of blocks."""
    parts = groups(len(profile.patch_tokens))
    rows = [
        (
            PHASE_NAMES[phase],
            *(_ms_or_none(part.ms(profile, phase)) for part in parts),
            text.ms(profile.phase_ms(phase)),
        )
        for phase in PHASES
        if profile.phase_ms(phase)
    ]
    rows.append(("whole pass", *[""] * len(parts), text.ms(profile.pass_ms)))
    names = [*(part.name for part in parts), "all"]
    return ReportTable(("phase", *names), rows, numbers=frozenset(names))


def model_line(model: ModelSpec) -> str:
    """A model's geometry in one line."""
    return (
        f"{text.plain(model.name)}: {text.count(model.blocks, 'block')}, "
        f"{text.count(model.patch_tokens, 'patch token')}, "
        f"{text.count(model.prefix_tokens, 'prefix token')}, width {model.width}"
    )


def schedule_line(policy: Policy) -> str:
    """What holds for a whole schedule, in one line."""
    weighted = "with" if policy.proportional_attention else "without"
    return (
        f"{text.percent(mac_share(policy))} of the blocks' multiply-accumulates, "
        f"{weighted} proportional attention, schedule {text.short(policy.schedule_hash)}"
    )


def caution_lines(cautions: Sequence[str]) -> Text:
    """Cautions, a line each, for a console."""
    return Text("\n".join(f"caution: {caution}" for caution in cautions), style="yellow")


def random_note() -> str:
    """What the random controls are there for."""
    return (
        f"{RANDOM}NAME drops tokens at random with the counts of NAME: the floor under any score."
    )


def ratio_of(figures: EvidenceFigures) -> str:
    """Latency as a share of the baseline's, with its interval where that is known."""
    if figures.ratio is not None:
        return text.ratio_interval(figures.ratio)
    return text.ratio(figures.median_ms / figures.baseline_ms)


def change_of(figures: EvidenceFigures) -> str:
    """Change of accuracy, where there is any to speak of."""
    if figures.difference is None or not figures.policy.reduces:
        return text.NONE
    return text.signed_points(figures.difference)


def _ms_or_none(value_ms: float) -> str:
    return text.ms(value_ms) if value_ms else text.NONE
