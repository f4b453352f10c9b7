"""Which of several policies is handed back: one rule for a run, a retarget and a policy set.

Among policies whose whole latency interval lies under the target, the best by the objective; then,
of all that cannot be told apart from it, the fastest. With a bound on the loss, the fastest whose
loss is within it by its interval. Accuracies are those of the `select` split.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from tokensearch.errors import PolicyError, TargetError
from tokensearch.policy.target import Target
from tokensearch.stats.interval import Interval, design_effect, paired_difference

# What cannot be told apart: divergences that differ by less, in nats. The predictions of two such
# policies differ by less than those of one model in float32 and in bfloat16.
TOLERANCE_NATS = 1e-3
# Share of right answers that nobody minds: published tables argue over a fifth of it.
MARGIN = 0.005

# How far off a timing under doubt may be, as a factor. Policies of 0.27x and 0.31x were timed at
# 0.85x and 0.80x on a busy machine.
DOUBT = 4.0

Meets = Literal["met", "missed", "ambiguous"]
Outcome = Literal["met", "missed", "ambiguous", "unreduced"]  # the last: the baseline meets it
_CHOSEN: tuple[Meets, ...] = ("met", "ambiguous")
UNKNOWN = Interval(math.inf, -math.inf, math.inf)  # what an older file does not say


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of the answer: a latency, a largest loss, or both.

    Raises:
        TargetError: Nothing is asked, or a bound is below zero.
    """

    target: Target | None = None
    max_drop: float | None = None  # share of right answers that may be lost
    max_divergence: float | None = None  # from the baseline's predictions, nats

    def __post_init__(self) -> None:
        if self.target is None and not self.bounded:
            raise TargetError("nothing is asked for; give a latency, a max_drop or max_divergence")
        points = None if self.max_drop is None else 100 * self.max_drop
        for name, bound, unit in (
            ("max_drop", points, "points"),
            ("max_divergence", self.max_divergence, "nats"),
        ):
            if bound is not None and not 0 <= bound < math.inf:
                raise TargetError(f"{name} is {bound:g} {unit}; give a number from 0 on")

    @property
    def bounded(self) -> bool:
        """Whether a loss is bounded: then the fastest policy is wanted."""
        return self.max_drop is not None or self.max_divergence is not None

    def target_ratio(self, *, batch: int, baseline_ms: float) -> float:
        """Return the slowest allowed pass as a share of the baseline's; 1 at most."""
        if self.target is None:
            return 1.0
        return min(1.0, self.target.ratio(batch=batch, baseline_ms=baseline_ms))

    @property
    def slug(self) -> str:
        """Name it in a folder's name.

        >>> Goal(max_drop=0.005).slug
        'drop0.5'
        """
        parts = [] if self.target is None else [str(self.target)]
        parts += [] if self.max_drop is None else [f"drop{100 * self.max_drop:g}"]
        parts += [] if self.max_divergence is None else [f"{self.max_divergence:g}nats"]
        return "-".join(parts)

    def __str__(self) -> str:
        drop = None if self.max_drop is None else f"at most {100 * self.max_drop:g} points lost"
        nats = None if self.max_divergence is None else f"at most {self.max_divergence:g} nats"
        parts = (None if self.target is None else str(self.target), drop, nats)
        return " and ".join(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class RightImages:
    """Which images a policy got right: any two can be compared image by image."""

    images: int
    bits: int  # bit i is set where image i was right
    groups: tuple[int, ...] | None = None  # of images that share what they show; None: none do

    @classmethod
    def from_hex(cls, images: int, digits: str, groups: str | None = None) -> "RightImages":
        """Read what `hex` and `groups_hex` wrote; PolicyError where they are of other images."""
        bits = int(digits, 16)
        if bits.bit_length() > images:
            raise PolicyError(
                f"a policy of this front is right on image {bits.bit_length()} of {images}; "
                "write the front again with tokensearch run or retarget"
            )
        return cls(images, bits, None if groups is None else _read_groups(images, groups))

    @property
    def hex(self) -> str:
        """The bits as files hold them.

        >>> RightImages(5, 0b10011).hex
        '13'
        """
        return f"{self.bits:x}"

    @property
    def groups_hex(self) -> str | None:
        """The group of each image as files hold it: numbers of equal width, side by side.

        >>> RightImages(3, 0b111, (70, 4, 70)).groups_hex
        '010'
        """
        if self.groups is None:
            return None
        numbers = {group: number for number, group in enumerate(dict.fromkeys(self.groups))}
        width = len(f"{len(numbers) - 1:x}")
        return "".join(f"{numbers[group]:0{width}x}" for group in self.groups)

    def change_from(self, other: "RightImages") -> Interval:
        """Return the share of right answers minus that of `other` on the same images.

        Images of one group count as far as they differ. PolicyError where the images cannot be the
        same.
        """
        if self.images != other.images:
            raise PolicyError(
                f"two policies of this front saw {self.images} and {other.images} images; "
                "write the front again with tokensearch run or retarget"
            )
        lost = (other.bits & ~self.bits).bit_count()
        won = (self.bits & ~other.bits).bit_count()
        effect = self._design_effect(other)
        low, high = paired_difference(lost / effect, won / effect, self.images / effect)
        return Interval((won - lost) / self.images, low, high)

    def _design_effect(self, other: "RightImages") -> float:
        if self.groups is None:
            return 1.0
        changes = [(self.bits >> i & 1) - (other.bits >> i & 1) for i in range(self.images)]
        return design_effect(changes, self.groups)


def _read_groups(images: int, digits: str) -> tuple[int, ...]:
    width, rest = divmod(len(digits), images)
    if rest or not width:
        raise PolicyError(
            f"a policy of this front has {len(digits)} digits of groups for {images} images; write "
            "the front again with tokensearch run or retarget"
        )
    return tuple(int(digits[at : at + width], 16) for at in range(0, len(digits), width))


@dataclass(frozen=True, slots=True)
class PolicyFigures:
    """A policy by all that it is chosen by."""

    reduces: bool
    batch: int  # images per pass
    ratio: Interval  # latency as a share of the baseline's
    median_ms: Interval
    value: float  # of the objective, on `select`; more is better
    divergence: Interval  # on `select`, nats
    right: RightImages | None  # on `select`; None: an older file does not say
    sure: bool = True  # whether the timing leaves no doubt that could decide


@dataclass(frozen=True, slots=True)
class Choice:
    """What is handed back, by its index among the candidates, and how surely it is asked for."""

    index: int | None
    outcome: Outcome
    as_good: tuple[int, ...] = ()  # all that cannot be told apart from the best, fastest first
    # What likely meets the goal, and is better than all that surely do: the best first.
    promising: tuple[int, ...] = ()
    fallback: int | None = None  # the baseline where it surely meets what a doubtful answer may


def choose(candidates: Sequence[PolicyFigures], goal: Goal) -> Choice:
    """Choose by the rule above.

    The baseline is the answer where it meets a latency and no loss is bounded. What may meet the
    goal, but does not for certain, is taken only if nothing else is left, as "ambiguous".
    """
    baseline = next((one.right for one in candidates if not one.reduces), None)
    how = [meets_goal(one, goal, baseline) for one in candidates]
    met, doubtful = ([i for i, one in enumerate(how) if one == what] for what in _CHOSEN)
    unreduced = [i for i in met if not candidates[i].reduces]
    if unreduced and not goal.bounded:
        return Choice(unreduced[0], "unreduced")
    likely = [i for i in doubtful if _is_likely(candidates[i], goal, baseline)]
    if reduced := [i for i in met if candidates[i].reduces]:
        sure = _pick(candidates, reduced, goal, "met")
        return replace(sure, promising=_find_promising(candidates, sure, likely, goal))
    if likely:
        chosen = _pick(candidates, likely, goal, "ambiguous")
        return replace(chosen, fallback=next(iter(unreduced), None))
    far = [i for i in doubtful if candidates[i].reduces]
    if far and not unreduced:
        nearest = min(far, key=lambda i: _measure_excess(candidates[i], goal, baseline))
        return Choice(nearest, "ambiguous")
    return Choice(unreduced[0], "unreduced") if unreduced else Choice(None, "missed")


def meets_goal(candidate: PolicyFigures, goal: Goal, baseline: RightImages | None) -> Meets:
    """Whether all that is asked for holds for certain, may hold, or does not.

    baseline  right images of the model without reduction
    """
    tests = _tests(candidate, goal, baseline)
    if any(test.figure.low > test.limit for test in tests):
        return "missed"
    return "met" if all(test.figure.high <= test.limit for test in tests) else "ambiguous"


def find_as_good(candidates: Sequence[PolicyFigures], best: int, among: Sequence[int]) -> list[int]:
    """Return those of `among` that cannot be told apart from the best, fastest first."""
    as_good = [i for i in among if i == best or is_as_good(candidates[i], candidates[best])]
    return sorted(as_good, key=lambda i: candidates[i].ratio.value)


def _pick(
    candidates: Sequence[PolicyFigures], among: Sequence[int], goal: Goal, outcome: Outcome
) -> Choice:
    if goal.bounded:
        return Choice(min(among, key=lambda i: candidates[i].ratio.value), outcome)
    best = max(among, key=lambda i: (candidates[i].value, -candidates[i].ratio.value))
    as_good = find_as_good(candidates, best, among)
    return Choice(as_good[0], outcome, tuple(as_good))


def _find_promising(
    candidates: Sequence[PolicyFigures], sure: Choice, likely: Sequence[int], goal: Goal
) -> tuple[int, ...]:
    """Return those of `likely` that would be better than what is surely chosen, the best first."""
    reduced = [i for i in likely if candidates[i].reduces]
    if goal.bounded:
        assert sure.index is not None  # something was chosen
        fastest = candidates[sure.index].ratio.value
        faster = [i for i in reduced if candidates[i].ratio.value < fastest]
        return tuple(sorted(faster, key=lambda i: candidates[i].ratio.value))
    best = max(sure.as_good, key=lambda i: candidates[i].value)
    better = [
        i
        for i in reduced
        if candidates[i].value > candidates[best].value
        and not is_as_good(candidates[best], candidates[i])
    ]
    return tuple(sorted(better, key=lambda i: -candidates[i].value))


def is_as_good(candidate: PolicyFigures, best: PolicyFigures) -> bool:
    """Whether it diverges no more within the tolerance, and is not right less often by the margin.

    Right less often counts where it is significant on the same images.
    """
    if candidate.right is None or best.right is None:
        return False
    change = candidate.right.change_from(best.right)
    worse = change.high < 0 and change.value < -MARGIN
    return candidate.divergence.value - best.divergence.value <= TOLERANCE_NATS and not worse


class _Test(NamedTuple):
    """A figure that is to stay within a limit."""

    figure: Interval
    limit: float


def _tests(candidate: PolicyFigures, goal: Goal, baseline: RightImages | None) -> list[_Test]:
    """Return all that is asked of a candidate. The baseline has no loss."""
    tests = [] if goal.target is None else [_latency_test(candidate, goal.target)]
    if candidate.reduces and goal.max_drop is not None:
        drop = UNKNOWN
        if candidate.right is not None and baseline is not None:
            drop = -candidate.right.change_from(baseline)
        tests.append(_Test(drop, goal.max_drop))
    if candidate.reduces and goal.max_divergence is not None:
        tests.append(_Test(candidate.divergence, goal.max_divergence))
    return tests


def _latency_test(candidate: PolicyFigures, target: Target) -> _Test:
    """Hold a share of the baseline against the ratio, a time against the median itself.

    A median has none of the ratio's protection against drift.
    """
    if target.relative and not candidate.reduces:  # the same model twice
        return _Test(Interval(1.0, 1.0, 1.0), target.number)
    figure, limit = candidate.ratio, target.number
    if not target.relative:
        figure = candidate.median_ms
        limit = target.limit_ms(batch=candidate.batch, baseline_ms=math.nan)  # not asked for
    if not candidate.sure:
        figure = replace(figure, low=figure.low / DOUBT, high=figure.high * DOUBT)
    return _Test(figure, limit)


def _measure_excess(candidate: PolicyFigures, goal: Goal, baseline: RightImages | None) -> float:
    """Return how far over its limits a candidate is, as a share of the one that it misses most."""
    return max(
        (test.figure.value - test.limit) / (test.limit or 1.0)
        for test in _tests(candidate, goal, baseline)
    )


def _is_likely(candidate: PolicyFigures, goal: Goal, baseline: RightImages | None) -> bool:
    """Whether the figures themselves meet the goal, whatever their intervals say."""
    return all(test.figure.value <= test.limit for test in _tests(candidate, goal, baseline))
