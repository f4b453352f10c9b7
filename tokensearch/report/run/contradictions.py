"""Whether front.json still says what run.json does; it may have been edited, or calibrated anew."""

from collections.abc import Iterator, Mapping
from math import isclose
from typing import Any

from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.records.measurements import Cell, to_json
from tokensearch.records.run_result import Finalist, RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import measure_in, name_finalist, name_of, share_in

SAME = 1e-9  # relative: both files hold all digits
SHOWN = 3  # differences that are spelled out


def contradiction(front: PolicySet, run: RunDocument) -> str | None:
    """Say in one sentence in what the front differs from its run, or None."""
    differences = list(_differences(front, run))
    if not differences:
        return None
    rest = len(differences) - SHOWN
    more = f" and {text.count(rest)} more" if rest > 0 else ""
    return (
        f"front.json contradicts run.json: {'; '.join(differences[:SHOWN])}{more}; it was edited "
        f"or calibrated after the run, whose own figures are those of finalists"
    )


def _differences(front: PolicySet, run: RunDocument) -> Iterator[str]:
    members = {policy.schedule_hash for policy in front.policies}
    for policy in front.policies:
        finalist = run.finished.finalist(policy.schedule_hash)
        if finalist is None:
            yield f"{name_of(policy, 'sampler')} is no finalist"
        else:
            yield from _figures_apart(policy, finalist, run.cell)
    for finalist in run.finished.finalists:
        if finalist.on_front and finalist.schedule_hash not in members:
            yield f"{name_finalist(finalist)} is missing"


def _figures_apart(policy: Policy, finalist: Finalist, cell: Cell) -> Iterator[str]:
    """Compare what was measured in the run's own cell."""
    for evidence in policy.evidence:
        if not _is_of(evidence, cell):
            continue
        for what, said, ran in _pairs(evidence, finalist):
            if not isclose(said, ran, rel_tol=SAME):
                yield f"{name_finalist(finalist)} has the {what} {said:.4g} for {ran:.4g}"


def _is_of(evidence: Evidence, cell: Cell) -> bool:
    """Whether evidence is of this cell; what older cells do not say is None in newer ones."""
    own, run = (
        {name: value for name, value in written.items() if value is not None}
        for written in (evidence.cell, to_json(cell))
    )
    return own == run


def _pairs(evidence: Evidence, finalist: Finalist) -> Iterator[tuple[str, float, float]]:
    """Figures of the front, and of the run."""
    timed, accuracy = finalist.comparison, evidence.accuracy
    yield _share_name(accuracy), share_in(accuracy).value, finalist.report.share
    yield "median_ms", evidence.median_ms, timed.candidate.median_ms
    yield "baseline median_ms", float(evidence.baseline["median_ms"]), timed.baseline.median_ms
    if "comparison" in evidence.extra:
        yield "ratio", evidence.extra["comparison"]["ratio"], timed.ratio


def _share_name(accuracy: Mapping[str, Any]) -> str:
    """Name the share of right answers as the file does, that of embeddings as people do."""
    return measure_in(accuracy) if "cosine" in accuracy else str(accuracy.get("kind", "top1"))
