"""Whether front.json still says what run.json does; it may have been edited, or calibrated anew."""

from collections.abc import Iterator
from math import isclose

from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.report import text
from tokensearch.report.run.result import Finalist, RunFindings, name_of

SAME = 1e-9  # relative: both files hold all digits
SHOWN = 3  # differences that are spelled out


def contradiction(front: PolicySet, findings: RunFindings) -> str | None:
    """Say in one sentence in what the front differs from its run, or None."""
    found = list(_differences(front, findings))
    if not found:
        return None
    more = f" and {text.count(len(found) - SHOWN)} more" if len(found) > SHOWN else ""
    return (
        f"front.json contradicts run.json: {'; '.join(found[:SHOWN])}{more}; it was edited or "
        f"calibrated after the run, whose own figures are those of finalists"
    )


def _differences(front: PolicySet, findings: RunFindings) -> Iterator[str]:
    finalists = {one.policy.schedule_hash: one for one in findings.finalists}
    members = {policy.schedule_hash for policy in front.policies}
    for policy in front.policies:
        finalist = finalists.get(policy.schedule_hash)
        if finalist is None:
            yield f"{name_of(policy, 'sampler')} is no finalist"
        else:
            yield from _figures_apart(policy, finalist, findings)
    for name, finalist in finalists.items():
        if finalist.on_front and name not in members:
            yield f"{finalist.name} is missing"


def _figures_apart(policy: Policy, finalist: Finalist, findings: RunFindings) -> Iterator[str]:
    """Compare what was measured in the run's own cell."""
    for evidence in policy.evidence:
        if evidence.cell != findings.run["cell"]:
            continue
        for what, said, ran in _pairs(evidence, finalist):
            if not isclose(said, ran, rel_tol=SAME):
                yield f"{finalist.name} has the {what} {said:.4g} for {ran:.4g}"


def _pairs(evidence: Evidence, finalist: Finalist) -> Iterator[tuple[str, float, float]]:
    """Figures of the front, and of the run."""
    yield (
        f"{evidence.accuracy.get('kind', 'top1')}",
        evidence.accuracy["top1"],
        (finalist.report.value),
    )
    yield "median_ms", evidence.median_ms, finalist.median_ms
    yield "baseline median_ms", float(evidence.baseline["median_ms"]), finalist.baseline_ms
    if "comparison" in evidence.extra:
        yield "ratio", evidence.extra["comparison"]["ratio"], finalist.ratio.value
