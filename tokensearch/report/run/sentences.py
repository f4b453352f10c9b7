"""The answer of a run in sentences, and what limits it."""

from tokensearch.report import text
from tokensearch.report.run.alternatives import pace, rival_sentences
from tokensearch.report.run.result import BASELINE, PROOF, Finalist, RunFindings
from tokensearch.report.run.tables import cell_line
from tokensearch.stats.interval import Interval

NO_WORSE = 0.005  # accuracy that nobody minds: published tables argue over a fifth of it


def answer_sentences(findings: RunFindings) -> tuple[str, ...]:
    """Return the answer as sentences, the most important first."""
    answer = findings.answer
    if answer is None:
        return (target_sentence(findings), preset_sentence(findings), *rival_sentences(findings))
    if not answer.policy.reduces:
        return (target_sentence(findings), f"Its {_standing(answer, findings.measure)}.")
    return (
        target_sentence(findings),
        cost_sentence(answer, findings.measure),
        preset_sentence(findings),
        *rival_sentences(findings),
    )


def target_sentence(findings: RunFindings) -> str:
    """Say whether the target is met, and by what margin."""
    asked = f"{findings.target} for a {_pass(findings)}"
    if not findings.target.relative:  # a share is judged by ratios: no milliseconds to confuse it
        asked += f", {text.ms(findings.limit_ms)}"
    baseline = text.ms(findings.baseline_ms)
    if findings.outcome == "unreduced":
        return f"Target met without reducing anything: {asked}; the baseline takes {baseline}."
    fastest = findings.answer or _fastest(findings)
    if fastest is None:
        return (
            f"Target not met: {asked}; but for controls, nothing that was confirmed is faster than "
            f"the baseline, so search longer."
        )
    who = "the answer" if findings.answer is not None else f"the fastest finalist, {fastest.name},"
    took = f"{who} takes {_times(fastest)}, {_margin(findings, fastest)}"
    match findings.outcome:
        case "met":
            return f"Target met: {asked}; {took}."
        case "missed":
            return f"Target not met: {asked}; {took}. The front below is the best that was found."
        case "ambiguous":
            return (
                f"Target too close to call: {asked}; {took}, which is within the noise of the "
                f"timing. Time it again on a quieter machine, or allow a little more time."
            )


def cost_sentence(one: Finalist, measure: str) -> str:
    """Say what a policy costs in right answers, and whether that is proven."""
    change, proof = one.difference, text.probability(one.p_value)
    now = _standing(one, measure)
    if change.value == 0:
        moved = f"as without reduction, give or take {text.points(change.reach)}"
    elif change.value < 0:
        fall = Interval(-change.value, -change.high, -change.low)
        moved = f"{text.points_interval(fall)} below that without reduction"
    else:
        moved = f"{text.points_interval(change)} above that without reduction"
    apart = change.low > 0 or change.high < 0
    proven = "proven" if apart and one.p_value < PROOF else "not proven"
    what = "difference" if change.value == 0 else "loss" if change.value < 0 else "gain"
    return f"Its {now}, {moved}; on the same images a {what} is {proven} ({proof})."


def preset_sentence(findings: RunFindings) -> str:
    """Compare the answer with the best published schedule that meets the target."""
    preset, answer = findings.best_preset, findings.answer
    if preset is None:
        return "No published preset among the finalists meets the target."
    figures = f"{preset.name} ({_times(preset)}, {text.percent_interval(preset.report)})"
    meets = "meets" if preset.ratio.high <= _limit(findings, preset) else "may meet"
    best = f"the best published finalist that {meets} the target, {figures}"
    if answer is None:
        return f"A published preset {meets} the target: {figures}."
    if preset.policy.schedule_hash == answer.policy.schedule_hash:
        return f"It is {best}: the search found nothing better."
    return _against(best, answer, preset, findings)


def _against(best: str, answer: Finalist, preset: Finalist, findings: RunFindings) -> str:
    """Say who is more accurate and who is faster, and what of it is proven."""
    speed, measure, lead = pace(answer.ratio, preset.ratio), findings.measure, findings.lead
    change = answer.report.value - preset.report.value
    more = f"{text.points(change)} {'more' if change >= 0 else 'less'} {measure}"
    if lead is None:
        return f"Beside {best}, it is {speed}, with {more}, not compared image by image."
    figures = text.signed_points_interval(lead.difference)
    more += f" ({figures} on the same images, {text.probability(lead.p_value)})"
    if lead.proven and change > 0:
        verb = "gives more than" if speed.startswith("slower") else "beats"
        return f"It {verb} {best}: {more}, and is {speed}."
    if lead.proven:
        return f"It does not beat {best}: it has {more}, and is {speed}."
    if speed.startswith("faster") and lead.difference.low > -NO_WORSE:
        surely = f"worse by less than {text.points(NO_WORSE)} for certain"
        return f"It beats {best}, in latency: it is {speed}, with {more}, {surely}."
    if speed.startswith("faster"):
        return f"It is {speed} than {best}, with {more}; that it is as accurate is not shown."
    return f"It is not shown to beat {best}: it has {more}, which is not proven, and is {speed}."


def _pass(findings: RunFindings) -> str:
    return f"pass of {text.count(findings.batch, 'image')}"


def _times(one: Finalist) -> str:
    if one.name == BASELINE:
        return text.ms(one.median_ms)
    # The baseline timed beside it, not the run's: on a machine that drifts they differ.
    both = f"{text.ms(one.median_ms)} against {text.ms(one.baseline_ms)} for the baseline"
    return f"{both}, {text.ratio_interval(one.ratio)}"


def _limit(findings: RunFindings, one: Finalist) -> float:
    """The target as a share of the baseline's latency, as timed beside `one`."""
    target = findings.target
    return target.limit_ms(batch=findings.batch, baseline_ms=one.baseline_ms) / one.baseline_ms


def _margin(findings: RunFindings, one: Finalist) -> str:
    """How far from the target, by the ratio timed in turn."""
    target = findings.target
    share = (
        one.ratio.value / target.number if target.relative else one.median_ms / findings.limit_ms
    )
    return f"{text.percent(abs(1 - share))} {'under' if share <= 1 else 'over'} the target"


def _standing(one: Finalist, measure: str) -> str:
    return f"{measure} is {text.percent_interval(one.report)}"


def _fastest(findings: RunFindings) -> Finalist | None:
    """The fastest that is no control: what the search could offer."""
    offered = (one for one in findings.finalists if not one.control)
    return min(offered, key=lambda one: one.ratio.value, default=None)


DEMO = "demo"


def limitation_lines(findings: RunFindings) -> tuple[str, ...]:
    """Return what a reader should know before relying on the figures."""
    lines = [
        f"Latencies belong to one cell: {cell_line(findings.run['cell'])}. "
        "Another machine, batch or number type wants its own run.",
        _precision(findings),
        "Each row was timed beside its own baseline passes: compare rows by their ratios, since "
        "milliseconds drift with the machine; here the baseline's moved by "
        f"{text.percent(findings.moved)}.",
        "Every interval covers its own figure at 95 %; of twenty, one may miss.",
        "A latency is the forward pass alone, images ready on the device; loading and "
        "preprocessing are not in it.",
    ]
    if "retargeted" in findings.run:
        lines.insert(
            0,
            f"Only time was taken in this run: its schedules and their right answers are those of "
            f"{findings.run['retargeted']}, so it has no trials and no profiles of its own.",
        )
    if not findings.labelled:
        lines.append(
            "The images have no labels: agreement says how often the reduced model answers as the "
            "baseline, not how often either is right."
        )
    if findings.run["settings"]["model"] == DEMO:
        lines.append(
            "The bundled model and its digit scenes are small: they show what this machine does "
            "with fewer tokens, and say nothing of what another model would lose."
        )
    return tuple(lines)


def _precision(findings: RunFindings) -> str:
    images = findings.run["data"]["splits"]["report"]["images"]
    known = f"The report split has {text.count(images, 'image')}"
    if findings.answer is None:
        return f"{known}."
    reach = text.points(findings.answer.report.reach)
    paired = text.points(findings.answer.difference.reach)
    return (
        f"{known}: the answer's {findings.measure} is known to about {reach} either way, its "
        f"change from the baseline to about {paired}."
    )
