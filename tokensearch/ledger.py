"""Two profiles in, one ledger out: where the difference in time comes from, term by term.

* **saved**    the host's own phases on other token counts: what cutting tokens is for. Measured as
               the difference of the two *floors*, passes of the same counts whose tokens are merely
               cut off;
* **spent**    scoring, selecting, gathering, merging, the bias of proportional attention, and the
               runtime's own code around them ("other" of a block);
* **shifted**  the host's phases at equal counts: a mask that takes attention off its fast path,
               another kernel, caches left cold. What a policy's own passes take beyond its floor;
* **residual** what is left of the difference of whole, plain passes.

Every figure is a mean over the middle half of its passes, so that terms add up and outliers do not
count. Intervals are *simultaneous*: a bootstrap over rounds in blocks gives the largest deviation
among all terms, in their own standard errors, and all intervals get its 95th percentile (the
"max-t" of Romano & Wolf, Econometrica 2005). So of twenty comparisons of a model with itself
nineteen have no term outside the noise, however many terms there are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from tokensearch.errors import MeasurementError
from tokensearch.operator_changes import OperatorChange, operator_changes
from tokensearch.profiles import REDUCING, Phase, PhaseTime, Place, Profile
from tokensearch.resampling import (
    Draws,
    Estimate,
    Values,
    alone,
    block_length,
    draws,
    middle_means,
    simultaneous,
)

Kind = Literal["saved", "spent", "shifted", "residual"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the ledger. Below 0: the candidate takes less."""

    kind: Kind
    block: int | None  # None: outside the blocks, or the sum over all
    phase: Phase | None  # None: the sum over all
    ms: Estimate


@dataclass(frozen=True)
class Ledger:
    """Where the difference between two profiles comes from."""

    baseline: Profile
    candidate: Profile
    difference: Estimate  # of plain passes
    ratio: Estimate  # of plain passes, candidate / baseline; no unit
    terms: tuple[Term, ...]  # by kind, block and phase
    by_block: tuple[Term, ...]
    nets: Mapping[int | None, Estimate]  # of each block, all kinds together
    by_phase: tuple[Term, ...]
    by_kind: tuple[Term, ...]  # saved, spent, shifted, residual: they add up to the difference
    operators: tuple[OperatorChange, ...]

    @cached_property
    def residual(self) -> Term:
        """What the terms leave unexplained."""
        return next(term for term in self.by_kind if term.kind == "residual")

    @property
    def closing(self) -> float:
        """Residual as a share of the difference: 0 when every millisecond is accounted for."""
        return abs(self.residual.ms.value / self.difference.value) if self.difference.value else 0.0

    @property
    def paired(self) -> bool:
        """Whether both were profiled in turn. If not, drift between them is in the residual."""
        return self.baseline.session == self.candidate.session

    @property
    def empty(self) -> bool:
        """Whether nothing in it is outside the noise."""
        return not any(term.ms.proven for term in (*self.terms, *self.by_kind))


def ledger(baseline: Profile, candidate: Profile, *, seed: int = 0) -> Ledger:
    """Explain the difference between two profiles of one model, in the cells they come from."""
    if baseline.model != candidate.model:
        raise MeasurementError(
            f"profiles of two models cannot be compared: {baseline.name} is of {baseline.model}, "
            f"{candidate.name} of {candidate.model}"
        )
    random = np.random.default_rng(seed)
    first = _Drawn(baseline, random)
    second = _Drawn(candidate, random, rounds=first if first.is_paired_with(candidate) else None)
    return _Sums(first, second).ledger(seed)


class _Drawn:
    """A profile's figures: row 0 as measured, the others from rounds drawn with replacement."""

    def __init__(
        self, profile: Profile, random: np.random.Generator, rounds: "_Drawn | None" = None
    ) -> None:
        self.profile = profile
        self.rounds: Draws = (
            draws(len(profile.plain.passes_ms), random) if rounds is None else rounds.rounds
        )
        self.plain = middle_means(np.array([profile.plain.passes_ms]).T, self.rounds)[:, 0]
        self.stamped = self._phases(profile.stamped)
        self.floor = self._phases(profile.floor or _host_only(profile.stamped))

    def is_paired_with(self, other: Profile) -> bool:
        return self.profile.session == other.session and len(other.plain.passes_ms) == len(
            self.profile.plain.passes_ms
        )

    def _phases(self, timed: Iterable[PhaseTime]) -> dict[Place, Values]:
        parts = {(item.block, item.phase): item.passes_ms for item in timed}
        means = middle_means(np.array(list(parts.values())).T, self.rounds)
        return dict(zip(parts, means.T, strict=True))

    def of(self, place: Place, where: Mapping[Place, Values]) -> Values:
        return where.get(place, np.zeros(len(self.plain)))


def _is_glue(place: Place) -> bool:
    """Whether it is what following a policy costs a block beside its phases: no host has that."""
    block, phase = place
    return block is not None and phase == "other"


def _host_only(stamped: Iterable[PhaseTime]) -> tuple[PhaseTime, ...]:
    """Without steps, a pass is its own floor."""
    return tuple(item for item in stamped if item.phase not in REDUCING)


class _Sums:
    """The terms of two profiles, and their sums."""

    def __init__(self, first: _Drawn, second: _Drawn) -> None:
        self.first, self.second = first, second
        rounds = min(first.rounds.shape[1], second.rounds.shape[1])
        self.blocks = rounds / block_length(rounds)
        places = dict.fromkeys([*first.stamped, *second.stamped])
        ordered = sorted(places, key=lambda place: (place[0] is None, place[0] or 0))
        self.terms = {key: values for place in ordered for key, values in self._terms_of(place)}
        self.difference = second.plain - first.plain
        self.residual = self.difference - sum(self.terms.values(), np.zeros(len(first.plain)))

    def _terms_of(self, place: Place) -> Iterable[tuple[tuple[Kind, Place], Values]]:
        one, other = self.first, self.second
        whole = other.of(place, other.stamped) - one.of(place, one.stamped)
        if place[1] in REDUCING or _is_glue(place):
            yield ("spent", place), whole
            return
        saved = other.of(place, other.floor) - one.of(place, one.floor)
        yield ("saved", place), saved
        if one.profile.floor or other.profile.floor:
            yield ("shifted", place), whole - saved

    def ledger(self, seed: int) -> Ledger:
        detail = {_Key(kind, *place): values for (kind, place), values in self.terms.items()}
        by_block = _added(detail, lambda key: _Key(key.kind, key.block, None))
        by_phase = _added(detail, lambda key: _Key(key.kind, None, key.phase))
        by_kind = _added(detail, lambda key: _Key(key.kind, None, None))
        by_kind[_Key("residual", None, None)] = self.residual
        nets = _added(detail, lambda key: _Key("saved", key.block, None))
        groups = (detail, by_block, nets, by_phase, by_kind)
        estimates = iter(
            simultaneous(
                [values for group in groups for values in group.values()], blocks=self.blocks
            )
        )
        terms, blocks, net, phases, kinds = (
            tuple(Term(key.kind, key.block, key.phase, next(estimates)) for key in group)
            for group in groups
        )
        return Ledger(
            self.first.profile,
            self.second.profile,
            alone(self.difference),
            alone(self.second.plain / self.first.plain),
            terms,
            blocks,
            {one.block: one.ms for one in net},
            phases,
            kinds,
            operator_changes(
                self.first.profile.operators, self.second.profile.operators, seed=seed
            ),
        )


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
