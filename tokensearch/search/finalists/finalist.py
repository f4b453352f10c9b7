"""From trials to an answer: chosen on `select`, confirmed by fresh timing, quoted on `report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.front import Point, front
from tokensearch.measure import TimingBudget
from tokensearch.policy import Evidence, Objective, Policy, Target, is_published
from tokensearch.policy.file import policy_from_json
from tokensearch.records.measurements import (
    Accuracy,
    Cell,
    Comparison,
    Latency,
    Outcome,
    Trial,
    to_json,
)
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.loop import RANDOM_ORIGIN
from tokensearch.stats.bootstrap import bootstrap_ratio

# Fresh pairs for every finalist, to about one percent. Autotuners of compilers ask for no fewer
# than fifty passes that the search never saw before they keep a winner.
CONFIRM_BUDGET = TimingBudget(warmup=3, first_look=30, max_rounds=150, seconds=6.0, precision=0.01)

Meets = Literal["met", "missed", "ambiguous"]


@dataclass(frozen=True, slots=True)
class ConfirmedPolicy:
    """One policy with all that it may be chosen by: scored on `select`, timed afresh."""

    trial: Trial
    policy: Policy
    comparison: Comparison  # fresh
    select: Accuracy
    objective: Objective

    @property
    def schedule_hash(self) -> str:
        """What it is known by."""
        return self.trial.schedule_hash

    @property
    def random(self) -> bool:
        """Whether it was drawn: the best of a few, which searching has to beat."""
        return self.trial.origin == RANDOM_ORIGIN

    @property
    def point(self) -> Point:
        """Worth on `select` against confirmed latency."""
        return Point(trial_value(self.select, self.objective), self.comparison.ratio)


class Answer(NamedTuple):
    """The policy that a search hands back, and whether it meets the target."""

    policy: ConfirmedPolicy | None
    outcome: Outcome


def confirm(trial: Trial, evaluator: PolicyEvaluator, objective: Objective) -> ConfirmedPolicy:
    """Score a trial's policy on `select`, and time it afresh."""
    policy = policy_from_json(trial.policy)
    select = evaluator.score(policy, "select").accuracy
    return ConfirmedPolicy(trial, policy, evaluator.time(policy, CONFIRM_BUDGET), select, objective)


def on_front(
    finalists: Sequence[ConfirmedPolicy], best: ConfirmedPolicy | None
) -> tuple[ConfirmedPolicy, ...]:
    """Finalists that no other dominates, fastest first; with the answer and the baseline.

    A faster finalist that may miss the target can dominate an answer that meets it for certain.
    """
    members = {finalists[i].schedule_hash for i in front([f.point for f in finalists])}
    return tuple(
        f for f in finalists if f.schedule_hash in members or f is best or not f.policy.reduces
    )


def meets_target(finalist: ConfirmedPolicy, target: Target, *, batch: int) -> Meets:
    """Whether the interval of the latency lies below, above or across the target.

    A share of the baseline is held against the ratio timed in turn; a time, against the median
    itself, which has none of the ratio's protection against drift.
    """
    comparison = finalist.comparison
    if target.relative and not finalist.policy.reduces:  # the same model twice: its ratio is 1
        return "met" if target.number >= 1 else "missed"
    low, high, limit = comparison.low, comparison.high, target.number
    if not target.relative:
        limit = target.limit_ms(batch=batch, baseline_ms=comparison.baseline.median_ms)
        low, high = _median_interval(comparison.candidate)
    if high <= limit:
        return "met"
    return "missed" if low > limit else "ambiguous"


def _median_interval(latency: Latency) -> tuple[float, float]:
    """Bootstrap interval of the median, in milliseconds: the ratio to a clock that never varies."""
    return bootstrap_ratio((1.0,) * len(latency.passes_ms), latency.passes_ms, seed=0)


def select_answer(finalists: Sequence[ConfirmedPolicy], target: Target, *, batch: int) -> Answer:
    """Return the most accurate finalist (on `select`) that meets the target, and how surely.

    The baseline, if it meets the target. If none does for certain, the most accurate of
    those that may; of equally accurate ones what diverges less from the baseline.
    """
    how = {f.schedule_hash: meets_target(f, target, batch=batch) for f in finalists}
    for outcome in ("met", "ambiguous"):
        under = [f for f in finalists if how[f.schedule_hash] == outcome]
        for baseline in (f for f in under if not f.policy.reduces):
            return Answer(baseline, "unreduced")
        if under:
            return Answer(max(under, key=_rank), outcome)
    return Answer(None, "missed")


def best_preset(
    finalists: Sequence[ConfirmedPolicy], target: Target, *, batch: int
) -> ConfirmedPolicy | None:
    """Return the most accurate published preset (on `select`) that meets the target."""
    published = [f for f in finalists if is_published(f.trial.origin)]
    under = [f for f in published if meets_target(f, target, batch=batch) != "missed"]
    return max(under, key=_rank, default=None)


def make_evidence(
    finalist: ConfirmedPolicy, report: ScoredPolicy, cell: Cell, *, confirmed: bool
) -> Evidence:
    """Write down what was measured of a finalist, for its policy file.

    `select` goes with it: a set is chosen from by that accuracy, so that the quoted one stays
    unbiased.
    """
    comparison = finalist.comparison
    return Evidence(
        cell=to_json(cell),
        latency=to_json(comparison.candidate),
        accuracy=to_json(report.accuracy),
        baseline=to_json(comparison.baseline),
        confirmed=confirmed,
        extra={
            "comparison": {
                name: getattr(comparison, name)
                for name in ("ratio", "low", "high", "level", "verdict")
            },
            "paired": to_json(report.paired),
            "select": to_json(finalist.select),
            "objective": finalist.objective,
        },
    )


def _rank(finalist: ConfirmedPolicy) -> tuple[float, float]:
    return finalist.point.accuracy, -finalist.point.latency
