"""Passes that a host enqueues and a device executes later: what a GPU's are, unless replayed.

A part starts on the device once its first operator was enqueued and the part before it has ended.
So launches hide behind heavy parts and show behind light ones, and parts do not add up: a pass
takes as long as the slowest way through it, on the host up to some part and on the device from
there on. What the host takes depends on which operators a pass has, never on how many tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tokensearch.costs.parts import (
    ATTENTION,
    HEAD,
    MLP,
    OTHER,
    SIZED_ATTENTION,
    SIZED_TAIL,
    STEM,
    TAIL,
    Part,
    parts_of,
)
from tokensearch.costs.prices import MAD_TO_SIGMA, OUTLIER, REFITS, TINY, Floats
from tokensearch.policy import ModelSpec, Policy

# Launches of the baseline are dealt evenly to these: 4 and 3 operators in DeiT's stem and
# head, 7 and 6 in the halves of its blocks. What takes the place of attention has a share as well.
_EVEN = frozenset({STEM, HEAD, ATTENTION, MLP})
_INSTEAD = frozenset({SIZED_ATTENTION, TAIL, SIZED_TAIL})
# What one more part may add to the launches of a pass, before any was timed, as a standard
# deviation: three sites add a quarter (pruning) to a half (pooling) of a DeiT's baseline, and
# a pass's noise is some hundredths. It decides only about parts that were hardly met.
ADDED_SD, NOISE_SD = 0.2, 0.03


# Of a part: the device begins with it once one is enqueued, and ends with the last of them.
OPERATORS = 7


class Path(NamedTuple):
    """The slowest way through the first parts of a pass."""

    host_ms: float
    device_ms: float

    def ms(self, scale: float) -> float:
        """How long it takes where the device takes `scale` times as long."""
        return self.host_ms + scale * self.device_ms


def paths(parts: Iterable[tuple[float, float]], scale: float = 1.0) -> Iterator[Path]:
    """Yield the slowest way to the end of each part, from what host and device take for each.

    Where the host takes no time it leads through the device alone.
    """
    host, last = 0.0, Path(0.0, 0.0)
    for host_ms, device_ms in parts:
        full = Path(last.host_ms, last.device_ms + device_ms)
        first = Path(host + host_ms / OPERATORS, device_ms)
        host += host_ms
        last = max(full, first, Path(host, device_ms / OPERATORS), key=lambda one: one.ms(scale))
        yield last


@dataclass(frozen=True, slots=True)
class Launches:
    """What the host takes to enqueue the baseline, and what other parts add to that."""

    pass_ms: float
    names: tuple[str, ...] = ()
    added_ms: tuple[float, ...] = ()

    def of(self, part: Part, model: ModelSpec) -> float:
        """Milliseconds on the host."""
        share = self.pass_ms / (2 * model.blocks + 2) if part.name in _EVEN | _INSTEAD else 0.0
        added = self.added_ms[self.names.index(part.name)] if part.name in self.names else 0.0
        return share + added


def fit_launch_terms(passes: Sequence[tuple[Policy, float]], pass_ms: float) -> Launches:
    """Fit what each part adds, from what the host took for whole passes; `pass_ms` of the baseline.

    Least squares without outliers, held to 0 where little was met.
    """
    counts = [_count_terms(policy) for policy, _ in passes]
    names = tuple(sorted({name for one in counts for name in one}))
    rows = np.array([[one.get(name, 0) for name in names] for one in counts], dtype=np.float64)
    more = np.array([ms for _, ms in passes]) / pass_ms - 1
    near = np.ones(len(more), dtype=bool)
    for _ in range(REFITS):
        coefficients = _ridge(rows[near], more[near])
        away = np.abs(more - rows @ coefficients)
        near = away <= OUTLIER * MAD_TO_SIGMA * np.median(away) + TINY
    return Launches(pass_ms, names, tuple((pass_ms * coefficients).tolist()))


def _count_terms(policy: Policy) -> dict[str, int]:
    """How often each part is met that the baseline has not."""
    names = [part.name for part in parts_of(policy)]
    return {name: names.count(name) for name in names if name not in _EVEN | {OTHER}}


def _ridge(rows: Floats, wanted: Floats) -> Floats:
    held = rows.T @ rows + np.eye(rows.shape[1]) * (NOISE_SD / ADDED_SD) ** 2
    return np.linalg.solve(held, rows.T @ wanted).astype(np.float64)
