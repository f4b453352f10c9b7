"""Which trials are worth confirming: the front, the best for the target, whom they must beat."""

from collections.abc import Sequence
from typing import NamedTuple

from tokensearch.front import Point, spread
from tokensearch.policy import Target
from tokensearch.records import Trial
from tokensearch.search.finalists import Finalist, answer, is_published, limit_of
from tokensearch.search.heat import worth_of
from tokensearch.search.trials import RANDOM_ORIGIN, Search

FRONT_FINALISTS = 8  # spread over the whole front: what other targets will be answered from
TARGET_FINALISTS = 3  # more of the most accurate ones under the target
MORE = 4  # beyond these, while something that seems better than the answer is not confirmed
# Latencies of trials are known to about two percent: one this much over may still meet the target.
NEAR = 1.02


class Placed(NamedTuple):
    """A trial by what it is chosen for."""

    trial: Trial
    point: Point  # worth on `search`, and latency as timed or as predicted


def placed(search: Search) -> tuple[Placed, ...]:
    """Trials that may be confirmed, best first: none that rests on a part of its images."""
    found = [
        Placed(one.trial, Point(worth_of(one.trial.accuracy, search.objective), search.ratio(one)))
        for one in search.ran
        if one.trial.state == "complete"
    ]
    return tuple(sorted(found, key=lambda one: (-one.point.accuracy, one.point.latency)))


def choose(best: Sequence[Placed], *, limit: float) -> tuple[Trial, ...]:
    """Trials worth confirming, for a target of `limit` times the baseline's latency.

    The front's spread, the best near the target, the best published preset and the best random
    schedule under it, and the un-reduced model.

    best  best first
    """
    trials = [one.trial for one in best]
    under = [one.trial for one in best if one.point.latency <= limit]
    near = [one.trial for one in best if limit < one.point.latency <= limit * NEAR]
    chosen = [trial for trial in trials if trial.origin == "none"]
    chosen += [trials[place] for place in spread([one.point for one in best], FRONT_FINALISTS)]
    chosen += [*under[:TARGET_FINALISTS], *near[:1]]
    chosen += [trial for trial in trials if trial in [*under, *near] and is_published(trial)][:1]
    chosen += [trial for trial in under if trial.origin == RANDOM_ORIGIN][:1]
    return tuple({trial.schedule_hash: trial for trial in chosen}.values())


def overlooked(
    best: Sequence[Placed], finalists: Sequence[Finalist], target: Target, *, batch: int
) -> Trial | None:
    """Return what seems to meet the target and to be better than the answer so far, if anything.

    Latencies of trials may be predictions, and are the better for every finalist's timing.

    best  best first
    """
    now, confirmed = answer(finalists, target, batch=batch), {f.trial.number for f in finalists}
    for one in best:
        if now.finalist is not None and one.trial.number == now.finalist.trial.number:
            return None
        limit = limit_of(finalists[0].comparison, target, batch=batch)
        if one.point.latency <= limit and one.trial.number not in confirmed:
            return one.trial
    return None
