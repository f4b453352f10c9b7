"""What became of every operator and kernel between two traces."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tokensearch.records.profile import Operator
from tokensearch.stats.bootstrap import Values, draw_rounds, simultaneous_intervals
from tokensearch.stats.interval import Interval

Change = Literal["added", "removed", "increased", "decreased", "same", "untested"]
_Name = tuple[str, bool]  # and whether it is a kernel


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """One operator or kernel, over all blocks, under the profiler."""

    name: str
    kernel: bool
    baseline_ms: float
    candidate_ms: float
    baseline_calls: float  # per pass
    candidate_calls: float
    ms: Interval
    passes: int  # traced of the side that has fewer

    @property
    def change(self) -> Change:
        """What became of it; "same" where the difference is inside the noise.

        "untested" where a side has a single pass, so that nobody knows the noise.
        """
        if not self.baseline_calls:
            return "added"
        if not self.candidate_calls:
            return "removed"
        if self.passes < 2:
            return "untested"
        if not self.ms.significant:
            return "same"
        return "increased" if self.ms.value > 0 else "decreased"


def operator_changes(
    baseline: Sequence[Operator], candidate: Sequence[Operator], *, seed: int = 0
) -> tuple[OperatorChange, ...]:
    """Compare operators and kernels by name, the largest change first.

    Traces are never paired, so passes are drawn for each by itself. A single pass shows no noise:
    intervals then reach from all gone to all new, and prove nothing.
    """
    before, after = _by_name(baseline), _by_name(candidate)
    names = list(dict.fromkeys([*before, *after]))
    passes = min(_passes(before), _passes(after))
    changes = [
        OperatorChange(
            *name,
            _ms(before, name),
            _ms(after, name),
            before[name].calls if name in before else 0.0,
            after[name].calls if name in after else 0.0,
            ms,
            passes,
        )
        for name, ms in zip(
            names, _differences(before, after, names, passes, seed=seed), strict=True
        )
    ]
    return tuple(sorted(changes, key=lambda change: -abs(change.ms.value)))


@dataclass(frozen=True, slots=True)
class _Named:
    passes_ms: Values
    calls: float


_Side = Mapping[_Name, _Named]


def _by_name(operators: Sequence[Operator]) -> dict[_Name, _Named]:
    sums: dict[_Name, _Named] = {}
    for item in operators:
        name = (item.name, item.kernel)
        known = sums.get(name, _Named(np.zeros(len(item.passes_ms)), 0.0))
        sums[name] = _Named(known.passes_ms + np.array(item.passes_ms), known.calls + item.calls)
    return sums


def _ms(side: _Side, name: _Name) -> float:
    return float(side[name].passes_ms.mean()) if name in side else 0.0


def _passes(side: _Side) -> int:
    return max((len(one.passes_ms) for one in side.values()), default=1)


def _differences(
    before: _Side, after: _Side, names: Sequence[_Name], passes: int, *, seed: int
) -> Iterator[Interval]:
    if passes < 2:
        for name in names:
            was, is_now = _ms(before, name), _ms(after, name)
            yield Interval(is_now - was, -was, is_now)
        return
    random = np.random.default_rng(seed)
    drawn = [_drawn(side, names, random) for side in (before, after)]
    yield from simultaneous_intervals([b - a for a, b in zip(*drawn, strict=True)], rounds=passes)


def _drawn(side: _Side, names: Sequence[_Name], random: np.random.Generator) -> list[Values]:
    """Means of every operator over passes drawn with replacement; 0 where there is none."""
    rounds = draw_rounds(_passes(side), random)
    zeros = np.zeros(len(rounds))
    return [side[name].passes_ms[rounds].mean(axis=1) if name in side else zeros for name in names]
