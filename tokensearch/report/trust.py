"""How far a run's figures carry: what they were not measured for, in sentences."""

from tokensearch.report import text
from tokensearch.report.findings import Findings
from tokensearch.report.tables import cell_line

DEMO = "demo"


def trust_lines(findings: Findings) -> tuple[str, ...]:
    """Return what a reader should know before relying on the figures."""
    lines = [
        f"Latencies belong to one cell: {cell_line(findings.run['cell'])}. "
        "Another machine, batch or number type wants its own run.",
        _precision(findings),
        "Each row was timed beside its own un-reduced passes: compare rows by their ratios, since "
        "milliseconds drift with the machine; here the un-reduced model's moved by "
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
            "un-reduced one, not how often either is right."
        )
    if findings.run["settings"]["model"] == DEMO:
        lines.append(
            "The bundled model and its digit scenes are small: they show what this machine does "
            "with fewer tokens, and say nothing of what another model would lose."
        )
    return tuple(lines)


def _precision(findings: Findings) -> str:
    images = findings.run["data"]["splits"]["report"]["images"]
    known = f"The report split has {text.count(images, 'image')}"
    if findings.answer is None:
        return f"{known}."
    reach = text.points(findings.answer.report.reach)
    paired = text.points(findings.answer.difference.reach)
    return (
        f"{known}: the answer's {findings.measure} is known to about {reach} either way, its "
        f"change from the un-reduced model to about {paired}."
    )
