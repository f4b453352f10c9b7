"""Two profiles in, one ledger out: where the difference in time comes from, term by term.

* **saved**    the model's own phases on other token counts: what cutting tokens is for. Measured
               as the difference of the two *floors*, passes of the same counts whose tokens are
               merely cut off;
* **spent**    scoring, selecting, gathering, merging, the bias of proportional attention, and the
               runtime's own code around them ("other" of a block);
* **shifted**  the model's own phases at equal counts: a mask that takes attention off its fast
               path, another kernel, cold caches: what a policy's own passes take beyond its floor;
* **residual** what is left of the difference of whole, plain passes.

Every figure is a mean over the middle half of its passes, at one speed of the machine, so that
terms add up and neither outliers nor slow rounds count. Intervals are *simultaneous*: a bootstrap
over rounds gives the largest deviation among all figures, in their own standard errors, and all
intervals get its 95th percentile (the "max-t" of Romano & Wolf, Econometrica 2005), widened for
rounds that resemble their neighbours. Of twenty comparisons of a model with itself at least
nineteen have nothing outside the noise, however many terms there are (`tests.bench ledgers`).

The floor is itself held against the clock: its phases must add up to plain passes of the same
counts, or what is called saved is shifted, and the other way round.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp
from typing import Any, Literal, get_args

import numpy as np

from tokensearch.diff.operators import OperatorChange, operator_changes
from tokensearch.errors import MeasurementError
from tokensearch.notebook import html_table
from tokensearch.records.comparability import verdict
from tokensearch.records.measurements import Verdict
from tokensearch.records.profile import REDUCING, Phase, PhaseTime, Profile, Scope
from tokensearch.stats.bootstrap import (
    Draws,
    Values,
    draw_rounds,
    middle_means,
    serial_correlation,
    simultaneous_intervals,
)
from tokensearch.stats.interval import Interval

Kind = Literal["saved", "spent", "shifted", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)


CLOSED = 0.02  # of the difference: what its terms may leave over
PRECISION = 0.01  # of a ratio; as of a comparison

# A step acts between attention and MLP: these phases of its own block see all tokens still.
_EARLY: frozenset[Phase] = frozenset({"qkv", "attention", "projection"})


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the ledger. Below 0: the candidate takes less."""

    kind: Kind
    block: int | None  # None: outside the blocks, or the sum over all
    phase: Phase | None  # None: the sum over all
    ms: Interval


@dataclass(frozen=True, repr=False)
class Ledger:
    """Where the difference between two profiles comes from."""

    baseline: Profile
    candidate: Profile
    baseline_ms: float  # a plain pass, at the speed at which both were timed
    candidate_ms: float
    difference: Interval  # of plain passes
    ratio: Interval  # of plain passes, candidate / baseline; no unit
    terms: tuple[Term, ...]  # by kind, block and phase
    by_block: tuple[Term, ...]
    nets: Mapping[int | None, Interval]  # of each block, all kinds together
    by_phase: tuple[Term, ...]
    by_kind: tuple[Term, ...]  # saved, spent, shifted, residual: they add up to the difference
    operators: tuple[OperatorChange, ...]
    floor_gap: Interval | None  # what the phases of the floors take beyond plain passes of them

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def _repr_html_(self) -> str:
        """Return what was saved, spent, shifted and left over, for notebooks."""
        rows = (
            (term.kind, f"{term.ms.value:+.3f}", f"{term.ms.low:+.3f}", f"{term.ms.high:+.3f}")
            for term in self.by_kind
        )
        return html_table(self._title, ("term", "ms", "low", "high"), rows)

    @property
    def _title(self) -> str:
        sides = f"{self.candidate.name:.60} beside {self.baseline.name:.60}"
        return f"Ledger of {sides}: {self.baseline_ms:.3g} ms to {self.candidate_ms:.3g} ms"

    @cached_property
    def residual(self) -> Term:
        """What the terms leave unexplained."""
        return next(term for term in self.by_kind if term.kind == "residual")

    @property
    def closing(self) -> float:
        """Residual as a share of the difference: 0 when every millisecond is accounted for."""
        return abs(self.residual.ms.value / self.difference.value) if self.difference.value else 0.0

    @property
    def floor_closing(self) -> float:
        """The gap of the floors as a share of the difference: what saved may be off by."""
        if self.floor_gap is None or not self.difference.value:
            return 0.0
        return abs(self.floor_gap.value / self.difference.value)

    @property
    def closes(self) -> bool:
        """Whether terms and floors account for all of the difference but `CLOSED` of it."""
        return max(self.closing, self.floor_closing) <= CLOSED

    @property
    def paired(self) -> bool:
        """Whether both were profiled in turn. If not, drift between them is in the residual."""
        return self.baseline.session == self.candidate.session

    @property
    def empty(self) -> bool:
        """Whether nothing in it is outside the noise."""
        terms = (*self.terms, *self.by_kind)
        return not (self.difference.significant or any(term.ms.significant for term in terms))

    @property
    def split(self) -> bool:
        """Whether passes were split by block. Compiled ones cannot be: no terms."""
        return all(_is_split(one) for one in (self.baseline, self.candidate))

    @property
    def verdict(self) -> Verdict:
        """What the ratio of plain passes proves."""
        return verdict(self.ratio.low, self.ratio.high, PRECISION)


def make_ledger(baseline: Profile, candidate: Profile, *, seed: int = 0) -> Ledger:
    """Explain the difference between two profiles of one model, in the cells they come from."""
    if baseline.model != candidate.model:
        raise MeasurementError(
            f"profiles of two models cannot be compared: {baseline.name!r:.80} is of "
            f"{baseline.model!r:.80}, {candidate.name!r:.80} of {candidate.model!r:.80}"
        )
    random = np.random.default_rng(seed)
    if _in_turn(baseline, candidate):
        speed, rounds = _speed(baseline, candidate), _rounds(baseline, random)
        first, second = (_Drawn(profile, rounds, speed) for profile in (baseline, candidate))
    else:
        first, second = (
            _Drawn(profile, _rounds(profile, random), np.ones(len(profile.plain.passes_ms)))
            for profile in (baseline, candidate)
        )
    return _Sums(first, second).ledger(seed)


def _in_turn(first: Profile, second: Profile) -> bool:
    rounds = {len(profile.plain.passes_ms) for profile in (first, second)}
    return first.session == second.session and len(rounds) == 1


def _rounds(profile: Profile, random: np.random.Generator) -> Draws:
    return draw_rounds(len(profile.plain.passes_ms), random)


def _speed(*profiles: Profile) -> Values:
    """How long every round took, as a share of the usual: the median over what was timed in it.

    Dividing by it takes out what slows a whole round down. Measured on two shared cores, DeiT-S:
    the middle half of the passes then lies within 3.7 % instead of 9.5 %. Not for profiles of two
    sessions, whose speeds nothing compares: there, slow rounds are part of what is not known.
    """
    turns = [profile.plain.passes_ms for profile in profiles]
    for profile in profiles:
        turns += [np.sum([part.passes_ms for part in of], axis=0) for of in _timed(profile)]
    table = np.array(turns)
    speed: Values = np.median(table / np.median(table, axis=1, keepdims=True), axis=0)
    return speed


def _timed(profile: Profile) -> Iterator[tuple[PhaseTime, ...]]:
    yield from (of for of in (profile.stamped, profile.floor) if of)


class _Drawn:
    """A profile's figures: row 0 as measured, the others from rounds drawn with replacement."""

    def __init__(self, profile: Profile, rounds: Draws, speed: Values) -> None:
        self.profile, self.rounds, self.speed = profile, rounds, speed[:, None]
        plain_ms = np.array([profile.plain.passes_ms]).T / self.speed
        self.plain = middle_means(plain_ms, rounds)[:, 0]
        self.stamped = self._phases(profile.stamped)
        self.floor = self._phases(profile.floor or _host_only(profile.stamped))
        self.floor_gap = self._floor_gap()
        self.alike = serial_correlation(
            np.array([profile.plain.passes_ms, *(part.passes_ms for part in profile.stamped)]).T
            / self.speed
        )

    def _floor_gap(self) -> Values | None:
        """Sum of the floor's phases, less a plain pass of it; None where it was not timed so."""
        if self.profile.floor_plain is None:
            return None
        plain_ms = np.array([self.profile.floor_plain.passes_ms]).T / self.speed
        whole: Values = sum(self.floor.values(), np.zeros(len(self.plain)))
        return whole - middle_means(plain_ms, self.rounds)[:, 0]

    def _phases(self, timed: Iterable[PhaseTime]) -> dict[Scope, Values]:
        parts = {(item.block, item.phase): item.passes_ms for item in timed}
        means = middle_means(np.array(list(parts.values())).T / self.speed, self.rounds)
        return dict(zip(parts, means.T, strict=True))

    def of(self, scope: Scope, where: Mapping[Scope, Values]) -> Values:
        return where.get(scope, np.zeros(len(self.plain)))


def _is_split(profile: Profile) -> bool:
    return any(item.block is not None for item in profile.stamped)


def _tokens(profile: Profile, scope: Scope) -> tuple[int, ...]:
    """Patch tokens that a phase works on."""
    block, phase = scope
    left = profile.patch_tokens
    if block is None:
        return left[-1:] if phase == "head" else ()
    before = left[block - 1] if block else int(profile.policy["model"]["patch_tokens"])
    # Where only prefix tokens pass the last block, its attention has their queries alone.
    early = phase in _EARLY and left[block] > 0
    return (before,) if early else (before, left[block])


def _is_glue(scope: Scope) -> bool:
    """Whether it is what following a policy costs a block beside its phases: no host has that."""
    block, phase = scope
    return block is not None and phase == "other"


def _host_only(stamped: Iterable[PhaseTime]) -> tuple[PhaseTime, ...]:
    """Without steps, a pass is its own floor."""
    return tuple(item for item in stamped if item.phase not in REDUCING)


class _Sums:
    """The terms of two profiles, and their sums."""

    def __init__(self, first: _Drawn, second: _Drawn) -> None:
        self.first, self.second = first, second
        self.rounds = min(first.rounds.shape[1], second.rounds.shape[1])
        self.alike = max(first.alike, second.alike)
        split = _is_split(first.profile) and _is_split(second.profile)
        scopes = dict.fromkeys([*first.stamped, *second.stamped] if split else [])
        ordered = sorted(scopes, key=lambda scope: (scope[0] is None, scope[0] or 0))
        self.terms = {key: values for scope in ordered for key, values in self._terms_of(scope)}
        self.difference = second.plain - first.plain
        self.residual = self.difference - sum(self.terms.values(), np.zeros(len(first.plain)))

    def _terms_of(self, scope: Scope) -> Iterable[tuple[tuple[Kind, Scope], Values]]:
        first, second = self.first, self.second
        whole = second.of(scope, second.stamped) - first.of(scope, first.stamped)
        if scope[1] in REDUCING or _is_glue(scope):
            yield ("spent", scope), whole
            return
        if _tokens(first.profile, scope) == _tokens(second.profile, scope):
            yield ("shifted", scope), whole
            return
        saved = second.of(scope, second.floor) - first.of(scope, first.floor)
        yield ("saved", scope), saved
        if first.profile.floor or second.profile.floor:
            yield ("shifted", scope), whole - saved

    def ledger(self, seed: int) -> Ledger:
        detail = {_Key(kind, *scope): values for (kind, scope), values in self.terms.items()}
        by_block = _added(detail, lambda key: _Key(key.kind, key.block, None))
        by_phase = _added(detail, lambda key: _Key(key.kind, None, key.phase))
        by_kind = _added(detail, lambda key: _Key(key.kind, None, None))
        by_kind[_Key("residual", None, None)] = self.residual
        nets: dict[int | None, Values] = {}
        for key, values in by_block.items():
            nets[key.block] = nets.get(key.block, 0.0) + values
        groups: tuple[Mapping[Any, Values], ...] = (detail, by_block, by_phase, by_kind, nets)
        every = [values for group in groups for values in group.values()]
        gap = self._floor_gap()
        whole = [self.difference, np.log(self.second.plain / self.first.plain)]  # a ratio: no sign
        difference, log_ratio, *estimated = simultaneous_intervals(
            [*whole, *every, *gap], rounds=self.rounds, correlation=self.alike
        )
        estimates = iter(estimated)
        return Ledger(
            baseline=self.first.profile,
            candidate=self.second.profile,
            baseline_ms=float(self.first.plain[0]),
            candidate_ms=float(self.second.plain[0]),
            difference=difference,
            ratio=_exponential(log_ratio),
            terms=_terms(detail, estimates),
            by_block=_terms(by_block, estimates),
            by_phase=_terms(by_phase, estimates),
            by_kind=_terms(by_kind, estimates),
            nets={block: next(estimates) for block in nets},
            operators=operator_changes(
                self.first.profile.operators, self.second.profile.operators, seed=seed
            ),
            floor_gap=next(estimates, None),
        )

    def _floor_gap(self) -> list[Values]:
        """What the floors take split beyond what they take whole, in one figure if in any."""
        gaps = [side.floor_gap for side in (self.second, self.first) if side.floor_gap is not None]
        return [gaps[0] - gaps[1] if len(gaps) == 2 else gaps[0]] if gaps else []


def _exponential(interval: Interval) -> Interval:
    return Interval(exp(interval.value), exp(interval.low), exp(interval.high))


def _terms(group: Iterable["_Key"], estimates: Iterator[Interval]) -> tuple[Term, ...]:
    return tuple(Term(key.kind, key.block, key.phase, next(estimates)) for key in group)


@dataclass(frozen=True, slots=True)
class _Key:
    """What a term is about."""

    kind: Kind
    block: int | None
    phase: Phase | None


def _added(detail: Mapping[_Key, Values], key: Callable[[_Key], _Key]) -> dict[_Key, Values]:
    sums: dict[_Key, Values] = {}
    for term, values in detail.items():
        sums[key(term)] = sums.get(key(term), 0.0) + values
    return sums
