"""From trials to an answer: chosen on `select`, confirmed by fresh timing, quoted on `report`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from tokensearch.front import Point, front, spread
from tokensearch.measure import Budget
from tokensearch.policy import PRESETS, Evidence, Policy, Target
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.policy.presets import CONTROL
from tokensearch.records import Comparison, Trial, to_json
from tokensearch.search.evaluator import Evaluator, Scored

FRONT_FINALISTS = 8  # spread over the whole front: what other targets will be answered from
TARGET_FINALISTS = 3  # more of the most accurate ones near the target
# Trials are timed to about two percent, so one this much over the target may still meet it.
NEAR = 1.03

# Fresh pairs for every finalist, to about one percent (practice of compiler autotuners: at least
# 50 warm-ups and passes that the search never saw).
CONFIRM_BUDGET = Budget(warmup=3, min_pairs=30, max_pairs=150, seconds=8.0, precision=0.01)

Meets = Literal["met", "missed", "ambiguous"]
Outcome = Literal["met", "missed", "ambiguous", "unreduced"]


@dataclass(frozen=True, slots=True)
class Finalist:
    """One policy with all that is known of it."""

    trial: Trial
    policy: Policy
    comparison: Comparison  # fresh
    select: Scored
    report: Scored  # quoted, and not looked at when choosing

    @property
    def point(self) -> Point:
        """Accuracy on `select` against confirmed latency."""
        return Point(self.select.accuracy.top1, self.comparison.ratio)


class Answer(NamedTuple):
    """What a search hands back, and whether it meets the target."""

    finalist: Finalist | None
    outcome: Outcome


def limit_of(comparison: Comparison, target: Target, *, batch: int) -> float:
    """Return the target as a share of the baseline's latency, as timed beside the candidate."""
    baseline_ms = comparison.baseline.median_ms
    return target.limit_ms(batch=batch, baseline_ms=baseline_ms) / baseline_ms


def choose(trials: Sequence[Trial], *, limit: float) -> tuple[Trial, ...]:
    """Trials worth confirming, for a target of `limit` times the baseline's latency.

    The front's spread, the most accurate near the target, the best published preset near it, and
    the un-reduced model.
    """
    timed = [trial for trial in trials if trial.comparison is not None]
    near = [trial for trial in timed if _ratio(trial) <= limit * NEAR]
    best = sorted(near, key=lambda trial: (-trial.accuracy.top1, trial.accuracy.kl, _ratio(trial)))
    presets = [trial for trial in best if is_published(trial)]
    points = [Point(trial.accuracy.top1, _ratio(trial)) for trial in timed]
    chosen = [trial for trial in timed if trial.origin == "none"]
    chosen += [timed[place] for place in spread(points, FRONT_FINALISTS)]
    chosen += [*best[:TARGET_FINALISTS], *presets[:1]]
    return tuple({trial.schedule_hash: trial for trial in chosen}.values())


def confirm(trial: Trial, evaluator: Evaluator) -> Finalist:
    """Score a trial's policy on `select` and `report`, and time it afresh."""
    policy = policy_from_json(trial.policy)
    return Finalist(
        trial,
        policy,
        comparison=evaluator.time(policy, CONFIRM_BUDGET),
        select=evaluator.score(policy, "select"),
        report=evaluator.score(policy, "report"),
    )


def on_front(finalists: Sequence[Finalist]) -> tuple[Finalist, ...]:
    """Finalists that no other dominates, fastest first; the un-reduced model always among them."""
    members = {finalists[i].trial.schedule_hash for i in front([f.point for f in finalists])}
    return tuple(f for f in finalists if f.trial.schedule_hash in members or not f.policy.reduces)


def meets(finalist: Finalist, target: Target, *, batch: int) -> Meets:
    """Whether the interval of the latency lies below, above or across the target."""
    limit = limit_of(finalist.comparison, target, batch=batch)
    if not finalist.policy.reduces:  # the same model twice: its ratio is 1 whatever was measured
        return "met" if limit >= 1 else "missed"
    if finalist.comparison.high <= limit:
        return "met"
    return "missed" if finalist.comparison.low > limit else "ambiguous"


def answer(finalists: Sequence[Finalist], target: Target, *, batch: int) -> Answer:
    """Return the most accurate finalist (on `select`) that meets the target, and how surely.

    The un-reduced model, if it meets the target. If none does for certain, the most accurate of
    those that may; of equally accurate ones the one nearer to the un-reduced model's predictions.
    """
    how = {f.trial.schedule_hash: meets(f, target, batch=batch) for f in finalists}
    for outcome in ("met", "ambiguous"):
        under = [f for f in finalists if how[f.trial.schedule_hash] == outcome]
        for unreduced in (f for f in under if not f.policy.reduces):
            return Answer(unreduced, "unreduced")
        if under:
            return Answer(max(under, key=_merit), outcome)
    return Answer(None, "missed")


def best_preset(finalists: Sequence[Finalist], target: Target, *, batch: int) -> Finalist | None:
    """Return the most accurate published preset (on `select`) that meets the target."""
    published = [f for f in finalists if is_published(f.trial)]
    under = [f for f in published if meets(f, target, batch=batch) != "missed"]
    return max(under, key=_merit, default=None)


def evidence(finalist: Finalist, evaluator: Evaluator, *, confirmed: bool) -> Evidence:
    """Write down what was measured of a finalist, for its policy file."""
    comparison = finalist.comparison
    return Evidence(
        cell=to_json(evaluator.cell),
        latency=to_json(comparison.candidate),
        accuracy=to_json(finalist.report.accuracy),
        baseline=to_json(comparison.baseline),
        confirmed=confirmed,
        extra={
            "comparison": {
                name: getattr(comparison, name)
                for name in ("ratio", "low", "high", "level", "verdict")
            },
            "paired": asdict(finalist.report.paired),
        },
    )


def summary(finalist: Finalist, *, front_member: bool) -> dict[str, Any]:
    """Return a finalist as run.json holds it."""
    return {
        "schedule_hash": finalist.trial.schedule_hash,
        "origin": finalist.trial.origin,
        "policy": policy_to_json(finalist.policy),
        "search": to_json(finalist.trial.accuracy),
        "select": to_json(finalist.select.accuracy),
        "report": to_json(finalist.report.accuracy),
        "paired": asdict(finalist.report.paired),
        "comparison": to_json(finalist.comparison),
        "on_front": front_member,
    }


def is_published(trial: Trial) -> bool:
    """Whether a trial is a schedule of the literature, controls left out."""
    preset = PRESETS.get(trial.origin)
    return preset is not None and preset.source != CONTROL


def _ratio(trial: Trial) -> float:
    return float("inf") if trial.comparison is None else trial.comparison.ratio


def _merit(finalist: Finalist) -> tuple[float, float, float]:
    accuracy = finalist.select.accuracy
    return accuracy.top1, -accuracy.kl, -finalist.comparison.ratio
