"""Which trials are worth confirming: the front, the best for the target, whom they must beat."""

from collections.abc import Sequence
from typing import NamedTuple

from tokensearch.front import Point, spread
from tokensearch.policy import Target, is_published
from tokensearch.records.measurements import Trial
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.finalists.finalist import (
    ConfirmedPolicy,
    meets_target,
    select_answer,
)
from tokensearch.search.loop import RANDOM_ORIGIN, SearchLoop

FRONT_FINALISTS = 8  # spread over the whole front: what other targets will be answered from
TARGET_FINALISTS = 3  # more of the most accurate ones under the target
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
    best: Sequence[RankedTrial], *, target_ratio: float, off: float
) -> tuple[Trial, ...]:
    """Trials worth confirming, for a target of `target_ratio` times the baseline's latency.

    The front's spread, the best near the target, the best published presets and the best random
    schedule that may meet it, and the baseline.

    best  best first
    off   relative error of latencies
    """
    trials = [one.trial for one in best]
    sure, under, near = (
        [one.trial for one in best if one.point.latency <= target_ratio * most]
        for most in (1 - off, 1, 1 + off)
    )
    chosen = [trial for trial in trials if trial.origin == "none"]
    chosen += [trials[index] for index in spread([one.point for one in best], FRONT_FINALISTS)]
    chosen += [*under[:TARGET_FINALISTS], *[trial for trial in near if trial not in under][:1]]
    for those in (sure, near):
        chosen += [trial for trial in those if is_published(trial.origin)][:1]
    chosen += [trial for trial in near if trial.origin == RANDOM_ORIGIN][:1]
    return tuple({trial.schedule_hash: trial for trial in chosen}.values())


def find_overlooked(
    best: Sequence[RankedTrial],
    finalists: Sequence[ConfirmedPolicy],
    target: Target,
    *,
    batch: int,
    target_ratio: float,
    off: float,
) -> Trial | None:
    """Return what seems to meet the target and to be better than the answer so far, if anything.

    Latencies of trials are the surer for every finalist's timing. Once one that seemed to meet the
    target did not for certain, the next is to seem so by the error of latencies.

    best  best first
    """
    now, confirmed = (
        select_answer(finalists, target, batch=batch),
        {f.trial.number for f in finalists},
    )
    if now.outcome == "unreduced":
        return None
    seemed = {one.trial.number for one in best if one.point.latency <= target_ratio}
    short = any(
        f.trial.number in seemed and meets_target(f, target, batch=batch) != "met"
        for f in finalists
    )
    reach = target_ratio * (1 - off) if short else target_ratio
    for ranked in best:
        trial = ranked.trial
        if now.outcome == "met" and now.policy and now.policy.trial.number == trial.number:
            return None
        if trial.number not in confirmed and ranked.point.latency <= reach:
            return trial
    return None
