"""A ledger as a tree of frames: pass, blocks, phases, operators; before and after."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from tokensearch.diff.ledger import Ledger, Term
from tokensearch.diff.operators import operator_changes
from tokensearch.records.profile import Operator, Phase, Profile, Scope
from tokensearch.report.diff.blocks import sum_estimates
from tokensearch.report.phases import PHASE_NAMES

OUTSIDE = "outside blocks"


@dataclass(frozen=True)
class Frame:
    """Something that takes time in one pass or in both, and what it is made of."""

    name: str
    baseline_ms: float
    candidate_ms: float
    significant: bool  # whether the change is outside the noise
    children: tuple["Frame", ...] = ()  # largest change first

    @property
    def change_ms(self) -> float:
        """Candidate minus baseline."""
        return self.candidate_ms - self.baseline_ms


def tree(ledger: Ledger) -> Frame:
    """Return the whole pass as a frame.

    Passes, blocks and phases have stamped times, which add up. Operators and kernels (of a GPU
    kernels alone) were seen under the profiler: theirs are scaled so that they add up to their
    phase.
    """
    sides = _Sides(ledger)
    blocks = dict.fromkeys(block for block, _ in sides.places)
    return Frame(
        "pass",
        ledger.baseline.pass_ms,
        ledger.candidate.pass_ms,
        ledger.difference.significant,
        _ordered(_block(block, sides) for block in blocks),
    )


@dataclass(frozen=True)
class _Sides:
    """Both profiles by place."""

    ledger: Ledger

    @cached_property
    def before(self) -> Mapping[Scope, float]:
        return _stamped(self.ledger.baseline)

    @cached_property
    def after(self) -> Mapping[Scope, float]:
        return _stamped(self.ledger.candidate)

    @property
    def places(self) -> tuple[Scope, ...]:
        return tuple(dict.fromkeys([*self.before, *self.after]))

    @cached_property
    def operators(self) -> tuple[Mapping[Scope, list[Operator]], Mapping[Scope, list[Operator]]]:
        return _operators(self.ledger.baseline), _operators(self.ledger.candidate)


def _stamped(profile: Profile) -> dict[Scope, float]:
    return {
        (item.block, item.phase): profile.phase_ms(item.phase, (item.block,))
        for item in profile.stamped
    }


def _operators(profile: Profile) -> dict[Scope, list[Operator]]:
    """Operators by place; none from outside the blocks, where traces know no stem and no head."""
    kernels = any(item.kernel for item in profile.operators)
    stemless = all(item.phase != "stem" for item in profile.stamped)
    by_place: dict[Scope, list[Operator]] = {}
    for item in profile.operators:
        if item.kernel == kernels and (item.block is not None or stemless):
            by_place.setdefault((item.block, item.phase), []).append(item)
    return by_place


def _block(block: int | None, sides: _Sides) -> Frame:
    phases = _ordered(_phase(scope, sides) for scope in sides.places if scope[0] == block)
    return Frame(
        OUTSIDE if block is None else f"block {block}",
        sum(one.baseline_ms for one in phases),
        sum(one.candidate_ms for one in phases),
        _any_significant(term for term in sides.ledger.by_block if term.block == block),
        phases,
    )


def _phase(scope: Scope, sides: _Sides) -> Frame:
    own = (term for term in sides.ledger.terms if (term.block, term.phase) == scope)
    name: Phase = scope[1]
    return Frame(
        PHASE_NAMES[name],
        sides.before.get(scope, 0.0),
        sides.after.get(scope, 0.0),
        _any_significant(own),
        _ordered(_inside(scope, sides)),
    )


def _inside(scope: Scope, sides: _Sides) -> Iterator[Frame]:
    before, after = (side.get(scope, []) for side in sides.operators)
    scales = [
        times.get(scope, 0.0) / (sum(one.ms for one in seen) or 1.0)
        for times, seen in ((sides.before, before), (sides.after, after))
    ]
    for change in operator_changes(before, after):
        yield Frame(
            change.name,
            scales[0] * change.baseline_ms,
            scales[1] * change.candidate_ms,
            change.change not in ("same", "untested"),
        )


def _any_significant(terms: Iterable[Term]) -> bool:
    return sum_estimates(term.ms for term in terms).significant


def _ordered(frames: Iterable[Frame]) -> tuple[Frame, ...]:
    return tuple(sorted(frames, key=lambda frame: -abs(frame.change_ms)))


def removed(frame: Frame, path: str = "") -> dict[str, tuple[float, int]]:
    """Return what only the baseline has: milliseconds by name, and in how many places.

    Of nested frames the outermost counts. Names are without the block, so that what is gone from
    every block is one entry. Longest first.
    """
    sums: dict[str, tuple[float, int]] = {}
    for name, ms in _gone(frame, path):
        known_ms, scopes = sums.get(name, (0.0, 0))
        sums[name] = (known_ms + ms, scopes + 1)
    return dict(sorted(sums.items(), key=lambda entry: -entry[1][0]))


def _gone(frame: Frame, path: str) -> Iterator[tuple[str, float]]:
    for child in frame.children:
        blockless = child.name == OUTSIDE or child.name.startswith("block ")
        name = path if blockless else " > ".join(filter(None, (path, child.name)))
        if child.baseline_ms and not child.candidate_ms:
            yield name or child.name, child.baseline_ms
        else:
            yield from _gone(child, name)
