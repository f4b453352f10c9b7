"""A machine with a queue: a host enqueues operators, and a device executes them in order.

An operator starts once it was enqueued and the one before it has ended. Launches hide behind heavy
operators and show behind light ones, so that parts of a pass do not add up: what a GPU does.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import ceil
from random import Random
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tests import cells
from tokensearch.costs.design import SWEPT_SCORES, Design
from tokensearch.costs.sweep import run_sweep
from tokensearch.costs.table import CostTable
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, Step, changes_sizes, mac_share
from tokensearch.policy.rescale import match_latency
from tokensearch.records.profile import Phase, Scope

SPEC = ModelSpec("deit_small", blocks=12, patch_tokens=196, prefix_tokens=1, width=384)
HEADS, EXPANSION, BYTES = 6, 4, 2
# An H100 about: what its matrix units reach in bf16 in products of this width, its memory, and the
# shortest kernel. At batch 64 and mild cuts the device is the slower one, at batch 1 the host.
BF16_FLOPS, FLOAT32_FLOPS = 600e12, 50e12
MEMORY, KERNEL_US = 3e12, 2.2
TILE, MULTIPROCESSORS = (128, 64), 264  # of a product; two tiles at a time on each of 132
LAUNCH_US = 6.0
EVENT_HOST_US, EVENT_DEVICE_US = 3.0, 1.0
APPLY_S = 0.008  # to give the model another policy
OTHER: Scope = (None, "other")
UNTIMED = 2  # passes before each that is timed
USUAL = ("prune drop", "prune fuse", "prune mean", "pool bipartite", "pool ranked")


class Operator(NamedTuple):
    """One operator of a pass, on the device."""

    scope: Scope
    us: float
    event: bool = False


How = Literal["plain", "split", "floor"]  # floor: split, and tokens only cut off
Micros = npt.NDArray[np.float64]


@dataclass
class QueueMachine:
    """DeiT-S on a GPU by a roofline, with as many operators as are counted in the real one."""

    batch: int
    launch_us: float = LAUNCH_US
    flops: float = BF16_FLOPS
    noise: float = 0.01  # log-normal, of a pass; single operators vary three times as much
    delayed: bool = True  # split passes: whether the host runs ahead of the device
    seed: int = 0
    passes: int = 0
    _now_s: float = 0.0
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def whole_ms(self, policy: Policy) -> float:
        """A plain pass from an idle stream, by the events around it."""
        return float(self._timed(*self._drawn(self._operators(policy)))[-1]) / 1000

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Scope, float]:
        """A pass with an event at every border, behind a delay if asked for, else as it comes."""
        return self._split(self._operators(policy, "floor" if floor else "split"))

    def enqueue_ms(self, policy: Policy) -> float:
        """What the host takes for a plain pass."""
        host, _ = self._drawn(self._operators(policy))
        self._timed(host, host)
        return float(host.sum()) / 1000

    def elapsed_s(self) -> float:
        return self._now_s

    def true_ms(self, policy: Policy) -> float:
        """A plain pass without noise."""
        operators = self._operators(policy)
        device = np.array([one.us for one in operators])
        return float(ended(np.full(len(device), self.launch_us), device)[-1]) / 1000

    def ratio(self, policy: Policy) -> float:
        """Share of the baseline's pass."""
        return self.true_ms(policy) / self.true_ms(Policy(policy.model))

    def operators(self, policy: Policy) -> int:
        """How many a plain pass has."""
        return len(self._operators(policy))

    def _split(self, operators: Sequence[Operator]) -> dict[Scope, float]:
        """Deal the time at which each operator ends, less the one before, to the phases."""
        parts: dict[Scope, float] = defaultdict(float)
        passed = list(_bordered(operators))
        host, device = self._drawn(passed)
        ends = self._timed(host, device)
        ends = np.cumsum(device) if self.delayed else ends
        for one, us in zip(passed, np.diff(ends, prepend=0.0).tolist(), strict=True):
            parts[one.scope] += us / 1000
        return dict(parts)

    def _drawn(self, operators: Sequence[Operator]) -> tuple[Micros, Micros]:
        """What the host and the device take for every operator, noise included."""
        host = [EVENT_HOST_US if one.event else self.launch_us for one in operators]
        return self._noisy(np.array(host)), self._noisy(np.array([one.us for one in operators]))

    def _noisy(self, us: Micros) -> Micros:
        each = self._random.normal(0, 3 * self.noise, len(us))
        noisy: Micros = us * np.exp(each + self._random.normal(0, self.noise))
        return noisy

    def _timed(self, host: Micros, device: Micros) -> Micros:
        self.passes += 1
        ends = ended(host, device)
        self._now_s += APPLY_S + (1 + UNTIMED) * float(ends[-1]) / 1e6
        return ends

    def _operators(self, policy: Policy, how: How = "plain") -> tuple[Operator, ...]:
        return _operators(policy, Kernels(self.batch, policy.model.width, self.flops), how)


def ended(host: Micros, device: Micros) -> Micros:
    """When each operator has ended: the device is idle at first, and the host begins at 0."""
    enqueued, worked = np.cumsum(host), np.cumsum(device)
    ends: Micros = worked + np.maximum.accumulate(enqueued - worked + device)
    return ends


@dataclass(frozen=True)
class Kernels:
    """Microseconds of what a pass consists of, at so many tokens of each image."""

    batch: int
    width: int
    flops: float

    def product(self, rows: int, columns: int, inner: int, count: int = 1) -> float:
        """`count` matrix products, in whole waves of tiles once the device is full."""
        tiles = count * ceil(rows / TILE[0]) * ceil(columns / TILE[1])
        waves = max(1.0, ceil(tiles / MULTIPROCESSORS))
        tile_us = 2e6 * TILE[0] * TILE[1] * inner * MULTIPROCESSORS / self.flops
        moved = BYTES * count * (rows * inner + columns * inner + rows * columns)
        full = tiles / MULTIPROCESSORS if tiles < MULTIPROCESSORS else waves
        return KERNEL_US + max(tile_us * max(full, 0.25), 1e6 * moved / MEMORY)

    def light(self, tokens: int, width: float = 0, times: int = 1) -> list[float]:
        """Operators that read and write every element once."""
        moved = 2 * BYTES * self.batch * tokens * (width or self.width)
        return [KERNEL_US + 1e6 * moved / MEMORY] * times

    def linear(self, tokens: int, columns: int, inner: int) -> list[float]:
        return [self.product(self.batch * tokens, columns, inner)]

    def attend(self, queries: int, keys: int, *, sized: bool) -> list[float]:
        """Fused attention; with a bias a slower kernel."""
        own = self.product(queries, 2 * keys, self.width // HEADS, self.batch * HEADS)
        return [own * (1.5 if sized else 1.0)]


@cache
def _operators(policy: Policy, gpu: Kernels, how: How) -> tuple[Operator, ...]:
    return tuple(Operator(scope, us) for scope, each in _phases(policy, gpu, how) for us in each)


_Phase = tuple[Scope, list[float]]


def _phases(policy: Policy, gpu: Kernels, how: How) -> Iterator[_Phase]:
    """Every phase of a pass with its kernels; 163 without reduction, as in the real model."""
    width, prefix = policy.model.width, policy.model.prefix_tokens
    left, sized = policy.model.patch_tokens, False
    yield (None, "stem"), [*gpu.linear(left, width, 768), *gpu.light(left, times=3)]
    for block, after in enumerate(policy.patch_tokens_per_block):
        tail = policy.last_block == "prefix_only" and block == policy.model.blocks - 1
        tokens, asking = left + prefix, prefix if tail else left + prefix
        if how != "plain" or tail or policy.steps_of(block) or sized:
            yield OTHER, gpu.light(1)
        if sized:
            yield (block, "bias"), gpu.light(tokens, 1, times=3)
        yield (block, "attention"), _attention(gpu, asking, tokens, sized=sized)
        for step in policy.steps_of(block):
            if how == "floor":
                yield (block, "gathering"), gpu.light(step.keep)
            else:
                yield from _site(step, block, left, gpu)
            left = step.keep
            sized = sized or (policy.proportional_attention and changes_sizes(step))
        sized = sized and how != "floor"
        yield (block, "mlp"), _mlp(gpu, after + prefix)
        left = after
    yield (None, "head"), [*gpu.light(left + prefix), *gpu.light(1), *gpu.linear(1, 1000, width)]


def _attention(gpu: Kernels, asking: int, tokens: int, *, sized: bool) -> list[float]:
    width = gpu.width
    columns = 3 * width * (1 + 2 * tokens) // (3 * tokens) if asking < tokens else 3 * width
    return [
        *gpu.light(tokens),
        *gpu.linear(tokens, columns, width),
        *gpu.attend(asking, tokens, sized=sized),
        *gpu.light(asking, times=2),
        *gpu.linear(asking, width, width),
        *gpu.light(asking),
    ]


def _mlp(gpu: Kernels, tokens: int) -> list[float]:
    hidden = EXPANSION * gpu.width
    return [
        *gpu.light(tokens),
        *gpu.linear(tokens, hidden, gpu.width),
        *gpu.light(tokens, hidden),
        *gpu.linear(tokens, gpu.width, hidden),
        *gpu.light(tokens, times=2),
    ]


def _site(step: Step, block: int, left: int, gpu: Kernels) -> Iterator[_Phase]:
    """A prune has 14 operators with its score, a pool by pairs 24."""

    def at(phase: Phase) -> Scope:
        return block, phase

    keep, gone = step.keep, left - step.keep
    if step.score is not None:
        yield at("scoring"), gpu.light(left, times=5)
    if isinstance(step, Prune):
        yield at("selecting"), [3 * KERNEL_US, *gpu.light(left, 4, times=5)]
        yield at("gathering"), gpu.light(keep, times=2 + (step.rest != "drop"))
        if step.rest != "drop":
            yield at("merging"), gpu.light(gone, times=4)
        return
    if isinstance(step, Pool) and step.match == "bipartite":
        yield at("selecting"), _matched(gpu, ceil(left / 2), left // 2)
    else:
        yield at("selecting"), _matched(gpu, gone, keep)
    yield at("gathering"), gpu.light(keep, times=4)
    yield at("merging"), [gpu.product(keep, gpu.width, gone, gpu.batch), *gpu.light(keep, times=7)]


def _matched(gpu: Kernels, rows: int, columns: int) -> list[float]:
    similar = gpu.product(rows, columns, gpu.width // HEADS, gpu.batch)
    return [
        *gpu.light(rows + columns, 64, times=2),
        similar,
        *gpu.light(rows, columns, times=2),
        3 * KERNEL_US,
        *gpu.light(rows, 4, times=6),
    ]


def _bordered(operators: Sequence[Operator]) -> Iterator[Operator]:
    """Put an event wherever a range is left, which still counts to it, or entered."""
    last = OTHER
    for one in operators:
        if one.scope != last:
            for scope, border in ((last, last), (one.scope, OTHER)):
                if scope[0] is not None:
                    yield Operator(border, EVENT_DEVICE_US, event=True)
        last = one.scope
        yield one


CELL = replace(cells.ON_GPU, batch=8, resolution=224, cache="warm", dtype="bfloat16")


def design(seed: int = 0) -> Design:
    return Design(SPEC, SWEPT_SCORES, USUAL, prefix_only=True, random=Random(seed))


def table_of(machine: QueueMachine, seconds: float = 20.0, seed: int = 0) -> CostTable:
    """Sweep a machine for as long as a sweep within a run lasts."""
    cell = replace(CELL, batch=machine.batch)
    queue = machine if machine.delayed else None
    return run_sweep(machine, design(seed), cell=cell, seconds=seconds, seed=seed, queue=queue)


def front_like(count: int = 60, seed: int = 77) -> list[Policy]:
    """Schedules as lie on fronts: an early cut, few sites, from mild to a fifth of the work."""
    random = Random(seed)
    shapes = (_shape(random) for _ in range(count))
    return [
        match_latency(shape, 0.95 - 0.75 * scope / (count - 1), mac_share)
        for scope, shape in enumerate(shapes)
    ]


def _shape(random: Random) -> Policy:
    """Bent to any share of work later: what matters are its sites and how they compare."""
    first = random.choice((0, 0, 1, 1, 2, 3))
    later = random.sample(range(first + 1, SPEC.blocks - 1), random.randint(0, 3))
    steps: list[Step] = []
    left = SPEC.patch_tokens
    match, rest = random.choice(("bipartite", "ranked")), random.choice(("drop", "fuse", "mean"))
    for block in (first, *sorted(later)):
        left = max(4, round(left * random.uniform(0.5, 0.8)))
        pool = random.random() < 0.4
        steps.append(Pool(block, left, match) if pool else Prune(block, left, rest=rest))
    return Policy(
        SPEC,
        tuple(steps),
        proportional_attention=random.random() < 0.5,
        last_block=random.choice(("full", "prefix_only")),
    )
