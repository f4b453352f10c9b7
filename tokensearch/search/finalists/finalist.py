"""From trials to an answer: chosen on `select`, confirmed by fresh timing, quoted on `report`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from tokensearch.evaluation.evaluator import ScoredPolicy
from tokensearch.measure import candidate_ms, deciding_cautions, note_comparison
from tokensearch.policy import (
    Evidence,
    Goal,
    Objective,
    Outcome,
    Policy,
    PolicyFigures,
    RightImages,
    choose,
    is_published,
)
from tokensearch.policy.answer import MARGIN, is_as_good
from tokensearch.records.comparability import contradicts
from tokensearch.records.measurements import (
    Cell,
    Comparison,
    Score,
    Trial,
    to_json,
)
from tokensearch.records.run_result import AnyChoice
from tokensearch.search.early_stopping import trial_value
from tokensearch.search.loop import RANDOM_ORIGIN
from tokensearch.stats.interval import Interval


@dataclass(frozen=True, slots=True)
class ConfirmedPolicy:
    """One policy with all that it may be chosen by: scored on `select`, timed afresh."""

    trial: Trial
    policy: Policy
    comparison: Comparison  # fresh
    select: Score
    choice: AnyChoice | None  # None: known from a run of an earlier release
    objective: Objective
    earlier: Comparison | None = None  # what was known of it in this cell before

    @property
    def schedule_hash(self) -> str:
        """What it is known by."""
        return self.trial.schedule_hash

    @property
    def random(self) -> bool:
        """Whether it was drawn: the best of a few, which searching has to beat."""
        return self.trial.origin == RANDOM_ORIGIN

    @property
    def sure(self) -> bool:
        """Whether nothing makes its timing doubtful."""
        return not deciding_cautions(self.comparison) and not self.contradicted

    @property
    def contradicted(self) -> bool:
        """Whether it was known in this cell to be clearly faster or slower."""
        return self.earlier is not None and contradicts(self.earlier, self.comparison)

    def timed_again(self, comparison: Comparison) -> "ConfirmedPolicy":
        """Return it with a fresh timing beside what was known for certain before."""
        known = None if deciding_cautions(self.comparison) else self.comparison
        return replace(self, comparison=comparison, earlier=self.earlier or known)

    @property
    def value(self) -> float:
        """Worth on `select`."""
        return trial_value(self.select, self.objective)

    def figures(self, batch: int) -> PolicyFigures:
        """Return what the rule of the answer goes by."""
        timed = self.comparison
        return make_figures(
            self.policy,
            self.select,
            self.choice,
            self.objective,
            ratio=timed.interval,
            median_ms=candidate_ms(timed),
            batch=batch,
            sure=self.sure,
        )


def make_figures(
    policy: Policy,
    select: Score,
    choice: AnyChoice | None,
    objective: Objective,
    *,
    ratio: Interval,
    median_ms: Interval,
    batch: int,
    sure: bool = True,
) -> PolicyFigures:
    """Return what the rule of the answer goes by; without `choice` losses have no intervals."""
    right, low, high = None, -inf, inf
    if choice is not None:
        right = RightImages.from_hex(select.images, choice.right, choice.groups)
        low, high = choice.divergence
    return PolicyFigures(
        reduces=policy.reduces,
        batch=batch,
        ratio=ratio,
        median_ms=median_ms,
        value=trial_value(select, objective),
        divergence=Interval(select.divergence, low, high),
        right=right,
        sure=sure,
    )


class Answer(NamedTuple):
    """The policy that a search hands back, and how surely it is what was asked for."""

    policy: ConfirmedPolicy | None
    outcome: Outcome
    as_good: tuple[ConfirmedPolicy, ...] = ()  # as the best that meets the target, fastest first
    promising: tuple[ConfirmedPolicy, ...] = ()  # better, and likely to be what was asked for


def on_front(finalists: Sequence[ConfirmedPolicy]) -> tuple[ConfirmedPolicy, ...]:
    """Finalists that no other dominates for certain, in their order; and the baseline.

    By all that an answer is chosen by: whatever goal one meets, what dominates it meets too.
    """
    figures = [finalist.figures(batch=1) for finalist in finalists]
    return tuple(
        finalist
        for i, finalist in enumerate(finalists)
        if not finalist.policy.reduces
        or not any(_dominates(figures, other, i) for other in range(len(finalists)) if other != i)
    )


def _dominates(figures: Sequence[PolicyFigures], first: int, second: int) -> bool:
    """Whether the first is no worse than the second in anything, and better or earlier.

    Right answers within the margin of the rule count as equal, and a doubtful timing displaces no
    sure one.
    """
    first_figure, second_figure = figures[first], figures[second]
    if second_figure.sure and not first_figure.sure:
        return False
    if first_figure.right is not None and second_figure.right is not None:
        fewer = second_figure.right.bits.bit_count() - first_figure.right.bits.bit_count()
        if fewer > MARGIN * second_figure.right.images:
            return False
    ours, theirs = (
        (-f.value, f.ratio.high, f.median_ms.high, f.divergence.value)
        for f in (first_figure, second_figure)
    )
    no_worse = all(mine <= yours for mine, yours in zip(ours, theirs, strict=True))
    return no_worse and (ours != theirs or first < second)


def select_answer(finalists: Sequence[ConfirmedPolicy], goal: Goal, *, batch: int) -> Answer:
    """Choose from the front of the finalists, as `PolicySet.best` does from the file of it."""
    members = on_front(finalists)
    choice = choose([f.figures(batch) for f in members], goal)
    policy = None if choice.index is None else members[choice.index]
    as_good, promising = (
        tuple(members[index] for index in indices) for indices in (choice.as_good, choice.promising)
    )
    return Answer(policy, choice.outcome, as_good, promising)


def best_preset(
    finalists: Sequence[ConfirmedPolicy], goal: Goal, *, batch: int
) -> ConfirmedPolicy | None:
    """Return the published preset that would be the answer if there were no others."""
    return _best_of(finalists, goal, batch, lambda f: is_published(f.trial.origin))


def best_random(
    finalists: Sequence[ConfirmedPolicy], goal: Goal, *, batch: int
) -> ConfirmedPolicy | None:
    """Return the random schedule that would be the answer if there were no others."""
    return _best_of(finalists, goal, batch, lambda f: f.random)


def equal_preset(
    finalists: Sequence[ConfirmedPolicy], answer: ConfirmedPolicy | None, *, batch: int
) -> ConfirmedPolicy | None:
    """Return the fastest published preset that is as good as the answer, however slow."""
    if answer is None or not answer.policy.reduces:
        return None
    wanted = answer.figures(batch)
    equal = [
        f
        for f in finalists
        if is_published(f.trial.origin) and is_as_good(f.figures(batch), wanted)
    ]
    return min(equal, key=lambda f: f.comparison.ratio, default=None)


def _best_of(
    finalists: Sequence[ConfirmedPolicy],
    goal: Goal,
    batch: int,
    wanted: Callable[[ConfirmedPolicy], bool],
) -> ConfirmedPolicy | None:
    some = [f for f in finalists if wanted(f) or not f.policy.reduces]
    best = select_answer(some, goal, batch=batch).policy
    return best if best is not None and best.policy.reduces else None


def make_evidence(
    finalist: ConfirmedPolicy, report: ScoredPolicy, cell: Cell, *, confirmed: bool
) -> Evidence:
    """Write down what was measured of a finalist, for its policy file.

    `select` goes with it: a set is chosen from by that accuracy, so that the quoted one stays
    unbiased.
    """
    comparison = finalist.comparison
    figures = {} if finalist.choice is None else {"choice": to_json(finalist.choice)}
    return Evidence(
        cell=to_json(cell),
        latency=to_json(comparison.candidate),
        accuracy=to_json(report.accuracy),
        baseline=to_json(comparison.baseline),
        confirmed=confirmed,
        extra={
            "comparison": note_comparison(comparison),
            "paired": to_json(report.paired),
            "select": to_json(finalist.select),
            **figures,
            "objective": finalist.objective,
        },
    )
