"""What `tokensearch run` prints when it ends."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokensearch.policy import PolicySet
from tokensearch.report.answer import in_words
from tokensearch.report.findings import read_findings
from tokensearch.report.grid import to_rich
from tokensearch.report.tables import caution_lines, front_table
from tokensearch.run_folder import RunFolder


def summary(
    run: Mapping[str, Any], front: PolicySet, *, folder: RunFolder | None = None
) -> RenderableType:
    """Return the answer in words, the front, cautions, and where the files are.

    Raises:
        RunError: The run has no result yet.
    """
    findings = read_findings(run)
    first, *rest = in_words(findings)
    parts: list[RenderableType] = [Text(first, style="bold"), Text(" ".join(rest))]
    parts.append(to_rich(front_table(front, findings)))
    if findings.cautions:
        parts.append(caution_lines(findings.cautions))
    if folder is not None:
        parts.append(_paths(folder))
    return Group(*parts)


def _paths(folder: RunFolder) -> Text:
    # One path per line, and never cut: people copy them.
    places = [("front", folder.front), ("report", folder.report)]
    if folder.policy.exists():
        places.insert(0, ("policy", folder.policy))
    lines = [f"{name:<8}{path}" for name, path in places]
    return Text("\n".join(lines), no_wrap=True, overflow="ignore")
