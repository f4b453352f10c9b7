"""The answer and what it is compared with, timed again in turn, until the answer is settled.

Between two sessions of timing a policy's ratio moves by more than within one, so that what is
compared must be of one session. A timing under doubt is taken again, within a bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Protocol

from tokensearch.evaluation.latency import OtherModel
from tokensearch.measure import TellRounds, TimingBudget
from tokensearch.policy import Goal, Policy
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Comparison
from tokensearch.search.finalists.finalist import (
    Answer,
    ConfirmedPolicy,
    best_preset,
    best_random,
    equal_preset,
    select_answer,
)
from tokensearch.stats.bootstrap import VERDICT_PAIRS

TRIES = 3  # sessions at most
PROMISING = 2  # that are likely to be better than the answer, timed in its session
DOUBTFUL = 4  # policies timed again in a session for their doubts alone


class TimeTogether(Protocol):
    """Times policies and other models in rounds with one baseline: `PolicyEvaluator`'s."""

    def __call__(
        self,
        policies: Sequence[Policy],
        budget: TimingBudget,
        *,
        others: Sequence[OtherModel] = (),
        tell: TellRounds = ...,
    ) -> tuple[Comparison, ...]:
        """Return the comparisons of the policies, then those of the others."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """What is quoted."""

    finalists: tuple[ConfirmedPolicy, ...]  # fastest first
    others: tuple[Comparison, ...]


def make_confirm_budget(policies: int, seconds: float, rounds: int = VERDICT_PAIRS) -> TimingBudget:
    """Return the budget of one session, to about one percent.

    Autotuners of compilers ask for no fewer than fifty passes that the search never saw before
    they keep a winner.

    seconds  for each policy
    rounds   at least, whatever the seconds
    """
    return TimingBudget(
        warmup=3,
        min_rounds=rounds,
        first_look=30,
        max_rounds=150,
        seconds=max(1, policies) * seconds,
        precision=0.01,
    )


def settle(
    finalists: Sequence[ConfirmedPolicy],
    goal: Goal,
    *,
    batch: int,
    time: TimeTogether,
    seconds: float,
    listener: ProgressListener,
    others: Sequence[OtherModel] = (),
    count_rounds: Callable[[int], int] = lambda _: VERDICT_PAIRS,
    may_repeat: Callable[[], bool] = lambda: True,
) -> Settled:
    """Time the answer and what it is compared with side by side, until it stays the answer.

    seconds       of a session, for each policy
    others        timed beside them, in one session at least
    count_rounds  rounds that a session of so many models takes at least
    may_repeat    whether there is time for one more session
    """
    listener.stage("timing the answer beside what it is compared with", unit="rounds")
    now, timed, began = tuple(finalists), tuple[Comparison, ...](), monotonic()
    for _ in range(TRIES):
        answer = select_answer(now, goal, batch=batch)
        compared = _compared(now, goal, answer, batch)
        if not others and not (compared and may_repeat()):
            break
        models = len(compared) + len(others)
        budget = make_confirm_budget(models, seconds, count_rounds(models))
        policies = [f.policy for f in compared]
        fresh = time(policies, budget, others=others, tell=partial(tell_rounds, listener, budget))
        timed = fresh[len(compared) :]
        again = {f.schedule_hash: f.timed_again(t) for f, t in zip(compared, fresh, strict=False)}
        now = tuple(again.get(f.schedule_hash, f) for f in now)
        if _is_settled(answer, select_answer(now, goal, batch=batch), goal):
            break
        slow = monotonic() - began > TRIES * budget.seconds  # a device whose passes are few
        if slow or not may_repeat():
            break
    return Settled(tuple(sorted(now, key=lambda f: f.comparison.ratio)), timed)


def tell_rounds(
    listener: ProgressListener, budget: TimingBudget, rounds: int, spent: float
) -> None:
    """Report how far a session is."""
    expected = round(rounds * budget.seconds / spent)
    listener.progress(
        done=rounds,
        total=max(rounds, budget.min_rounds, min(budget.max_rounds, expected)),
        seconds_left=max(0.0, budget.seconds - spent),
        text="",
    )


def _compared(
    finalists: Sequence[ConfirmedPolicy], goal: Goal, answer: Answer, batch: int
) -> tuple[ConfirmedPolicy, ...]:
    """Return the answer, what may be better, the best preset and random one, and what decides."""
    if answer.outcome == "unreduced":
        return ()
    compared = [
        answer.policy,
        best_preset(finalists, goal, batch=batch),
        equal_preset(finalists, answer.policy, batch=batch),
        best_random(finalists, goal, batch=batch),
        *([] if answer.outcome == "met" else _doubtful(finalists)),
        *answer.promising[:PROMISING],
    ]
    return tuple({f.schedule_hash: f for f in compared if f is not None}.values())


def _doubtful(finalists: Sequence[ConfirmedPolicy]) -> list[ConfirmedPolicy]:
    """Return the best whose timing may be wrong: one of these could be the answer."""
    unsure = [f for f in finalists if f.policy.reduces and not f.sure]
    return sorted(unsure, key=lambda f: -f.value)[:DOUBTFUL]


def _is_settled(before: Answer, now: Answer, goal: Goal) -> bool:
    """Whether a session left the answer the same and its timing beyond doubt."""
    if before.policy is None or now.policy is None:
        return before.policy is now.policy
    same = before.policy.schedule_hash == now.policy.schedule_hash
    # A loss that its images leave open is left open by any clock.
    return same and (now.outcome == "met" or (goal.bounded and now.policy.sure))
