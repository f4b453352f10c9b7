"""Which trials are worth confirming: the front, the best for the target, whom they must beat."""

from collections.abc import Sequence
from typing import NamedTuple

from tokensearch.front import Point, spread
from tokensearch.policy import Goal, is_control, is_published
from tokensearch.policy.answer import TOLERANCE_NATS, meets_goal
from tokensearch.records.measurements import Trial
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.finalists.finalist import Answer, ConfirmedPolicy, select_answer
from tokensearch.search.loop import RANDOM_ORIGIN, SearchLoop

FRONT_FINALISTS = 8  # spread over the whole front: what other targets will be answered from
TARGET_FINALISTS = 3  # more of the most accurate ones under the target
FASTEST_FINALISTS = 3  # more of the fastest that seem as good as the best
LEAST_SPARE = 0.1  # share under the target of what is confirmed in case latencies are off
MORE = 4  # beyond these, while something that seems better than the answer is not confirmed


class RankedTrial(NamedTuple):
    """A trial by what it is chosen for."""

    trial: Trial
    point: Point  # worth on `search`, and latency as it is known


def rank_trials(search: SearchLoop) -> tuple[RankedTrial, ...]:
    """Trials that may be confirmed, best first: none that rests on a part of its images."""
    ranked = [
        RankedTrial(
            one.trial, Point(trial_value(one.trial.accuracy, search.objective), search.ratio(one))
        )
        for one in search.evaluated
        if one.trial.state == "complete"
    ]
    return tuple(sorted(ranked, key=lambda one: (-one.point.accuracy, one.point.latency)))


def select_finalists(
    best: Sequence[RankedTrial], goal: Goal, *, target_ratio: float, off: float
) -> tuple[Trial, ...]:
    """Trials worth confirming, for a target of `target_ratio` times the baseline's latency.

    The baseline, what the rule of the answer would take, what it would take if latencies were off
    (or a busy machine is left with nothing that meets the target), the best published presets that
    may meet it, or else the nearest, the best near the target, the best random schedule, and the
    front's spread: in this order, since there may be no time for all. Controls come after what was
    searched for.

    best  best first
    off   relative error of latencies
    """
    trials = [one.trial for one in best]
    sure, under, near = (
        [one.trial for one in best if one.point.latency <= target_ratio * most]
        for most in (1 - off, 1, 1 + off)
    )
    chosen = [trial for trial in trials if trial.origin == "none"]
    likely, spare = (
        sorted(_likely_answers(best, goal, reach), key=lambda one: _is_control(one.trial))
        for reach in (target_ratio, target_ratio * (1 - max(off, LEAST_SPARE)))
    )
    chosen += [one.trial for one in (*likely[:1], *spare[:1])]
    chosen += _published_rivals(best, sure, near)
    chosen += [one.trial for one in likely[1:FASTEST_FINALISTS]]
    chosen += under[:TARGET_FINALISTS]
    chosen += [trial for trial in near if trial.origin == RANDOM_ORIGIN][:1]
    chosen += [trial for trial in near if trial not in under][:1]
    chosen += [trials[index] for index in spread([one.point for one in best], FRONT_FINALISTS)]
    return tuple({trial.schedule_hash: trial for trial in chosen}.values())


def _published_rivals(
    best: Sequence[RankedTrial], sure: Sequence[Trial], near: Sequence[Trial]
) -> list[Trial]:
    """Return the best presets that seem to meet the target, or the fastest where none does."""
    rivals = list[Trial]()
    for those in (sure, near):
        rivals += [trial for trial in those if is_published(trial.origin)][:1]
    published = [one for one in best if is_published(one.trial.origin)]
    if not rivals and published:
        return [min(published, key=lambda one: one.point.latency).trial]
    return rivals


def find_overlooked(
    best: Sequence[RankedTrial],
    finalists: Sequence[ConfirmedPolicy],
    goal: Goal,
    *,
    batch: int,
    target_ratio: float,
    off: float,
) -> Trial | None:
    """Return what seems to meet the goal and to be better than the answer so far, if anything.

    Latencies of trials are the surer for every finalist's timing. Once one that seemed to meet the
    target did not for certain, the next is to seem so by the error of latencies.

    best  best first
    """
    now = select_answer(finalists, goal, batch=batch)
    if now.outcome == "unreduced" and not goal.bounded:
        return None
    confirmed = {f.trial.number for f in finalists}
    seemed = {
        candidate.trial.number for candidate in best if candidate.point.latency <= target_ratio
    }
    short = any(
        f.trial.number in seemed and not _meets(f, goal, finalists, batch) for f in finalists
    )
    reach = target_ratio * (1 - off) if short else target_ratio
    for candidate in (*_better(best, now, goal), *_faster(best, now, goal, reach)):
        if candidate.trial.number not in confirmed and candidate.point.latency <= reach:
            return candidate.trial
    return None


def _better(best: Sequence[RankedTrial], now: Answer, goal: Goal) -> Sequence[RankedTrial]:
    """Return the trials that are better than the best that surely meets the goal."""
    if goal.bounded:
        return ()
    if now.outcome != "met":
        return best
    top = max(now.as_good, key=lambda policy: policy.value).trial.number
    numbers = [one.trial.number for one in best]
    return best[: numbers.index(top)] if top in numbers else best


def _faster(
    best: Sequence[RankedTrial], now: Answer, goal: Goal, reach: float
) -> Sequence[RankedTrial]:
    """Return the trials that the rule may prefer to the answer, fastest first."""
    likely = _likely_answers(best, goal, reach)
    if now.outcome != "met" or now.policy is None:
        return likely
    return [one for one in likely if one.point.latency < now.policy.comparison.ratio]


def _likely_answers(
    best: Sequence[RankedTrial], goal: Goal, target_ratio: float
) -> list[RankedTrial]:
    """Return what the rule of the answer would take by figures of `search`, fastest first."""
    under = [one for one in best if one.point.latency <= target_ratio]
    if goal.bounded:
        baseline = next((one.trial for one in best if one.trial.origin == "none"), None)
        likely = [one for one in under if baseline and _within(one.trial, baseline, goal)]
    else:
        likely = [
            one
            for one in under
            if one.trial.accuracy.divergence - under[0].trial.accuracy.divergence <= TOLERANCE_NATS
        ]
    return sorted(likely, key=lambda one: one.point.latency)


def _within(trial: Trial, baseline: Trial, goal: Goal) -> bool:
    """Whether a loss on `search` is within what may be lost."""
    drop = baseline.accuracy.share - trial.accuracy.share
    return (goal.max_drop is None or drop <= goal.max_drop) and (
        goal.max_divergence is None or trial.accuracy.divergence <= goal.max_divergence
    )


def _is_control(trial: Trial) -> bool:
    return trial.origin == RANDOM_ORIGIN or is_control(trial.origin)


def _meets(
    finalist: ConfirmedPolicy, goal: Goal, finalists: Sequence[ConfirmedPolicy], batch: int
) -> bool:
    """Whether a finalist surely meets the goal."""
    baseline = next((f for f in finalists if not f.policy.reduces), None)
    right = None if baseline is None else baseline.figures(batch).right
    return meets_goal(finalist.figures(batch), goal, right) == "met"
