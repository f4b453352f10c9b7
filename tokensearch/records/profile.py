"""What a profile holds: the phases of a pass, operators, work and ceilings."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, median
from typing import Any, Literal, get_args

from tokensearch.records.measurements import Cell, Conditions, Latency

Phase = Literal[
    "stem",
    "norm",
    "qkv",
    "attention",
    "projection",
    "mlp",
    "bias",
    "scoring",
    "selecting",
    "gathering",
    "merging",
    "head",
    "other",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
REDUCING: tuple[Phase, ...] = ("bias", "scoring", "selecting", "gathering", "merging")

Scope = tuple[int | None, Phase]  # block, None outside the blocks
OUTSIDE: Scope = (None, "other")  # within no range of ours

RANGE = "tokensearch"
PASS_RANGE = f"{RANGE}.pass"
# A trace may be anybody's: no model has blocks of five digits.
_RANGE = re.compile(rf"{re.escape(RANGE)}\.block\.(\d{{1,4}})\.({'|'.join(PHASES)})")
_PHASE_OF: dict[str, Phase] = {phase: phase for phase in PHASES}


def range_name(block: int, phase: Phase) -> str:
    """Name of the profiler range around one phase of one block, as the runtime writes it.

    >>> range_name(3, "mlp")
    'tokensearch.block.3.mlp'
    """
    return f"{RANGE}.block.{block}.{phase}"


def scope_of(name: str) -> Scope | None:
    """Which block and phase a range was put around; None if it is no range of the runtime.

    >>> scope_of("tokensearch.block.3.mlp"), scope_of("aten::linear")
    ((3, 'mlp'), None)
    """
    match = _RANGE.fullmatch(name)
    return (int(match[1]), _PHASE_OF[match[2]]) if match else None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Time of one phase of one block in each stamped pass; what is nested in it left out."""

    block: int | None  # None: outside the blocks
    phase: Phase
    passes_ms: tuple[float, ...]  # in the order taken; of equal length in all phases
    borders: float = 0.0  # per pass, whose price was taken off


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator or kernel within one phase, under the profiler; its own time only."""

    block: int | None
    phase: Phase
    name: str
    kernel: bool  # ran on the device, launched from here
    calls: float  # per pass
    passes_ms: tuple[float, ...]  # one per traced pass

    @property
    def ms(self) -> float:
        """Mean over the traced passes."""
        return fmean(self.passes_ms)


@dataclass(frozen=True, slots=True)
class Work:
    """What one phase of one block computes and moves in a pass, counted, not measured."""

    block: int | None
    phase: Phase
    flop: float  # of products and convolutions; 2 per multiply-accumulate
    bytes: float  # of every operator's inputs and outputs; views move nothing


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What this machine can do at most, as measured beside the profile."""

    gflop_s: float  # of a large product
    gbyte_s: float  # of a large copy, read and written bytes together


@dataclass(frozen=True)
class Profile:
    """Where the time of a pass goes, in one cell, under one policy or none."""

    name: str  # what the user called it: a preset, a file
    model: str
    schedule_hash: str
    patch_tokens: tuple[int, ...]  # left after each block
    prefix_tokens: int
    policy: dict[str, Any] = field(hash=False)  # as a policy file spells it
    cell: Cell
    session: str  # profiles of one session were taken in turn: pass i of each is of one round
    plain: Latency
    stamped: tuple[PhaseTime, ...]
    floor: tuple[PhaseTime, ...] = ()  # the same counts, tokens merely cut off; () without steps
    floor_plain: Latency | None = None  # whole passes of the floor, which nothing splits
    operators: tuple[Operator, ...] = ()
    traced_ms: tuple[float, ...] = ()  # whole passes under the profiler
    work: tuple[Work, ...] = ()
    ceilings: Ceilings | None = None
    peak_bytes: int | None = None  # highest use above what was in use before the pass
    sdpa: str | None = None  # kernel of the attention, with the mask that the policy adds, if any
    conditions: Conditions | None = None  # of the machine, while passes were timed
    border_ms: float = 0.0  # price of a border, taken off the phases; noise leaves some below 0

    @cached_property
    def stamped_ms(self) -> tuple[float, ...]:
        """Whole stamped passes: the sum of their phases, which is exact."""
        return tuple(map(sum, zip(*(item.passes_ms for item in self.stamped), strict=True)))

    @cached_property
    def middle(self) -> tuple[int, ...]:
        """The half of the stamped passes that were neither fast nor slow: parts are their means.

        Means add up, which medians do not; of the middle half, they bear outliers as well.
        """
        order = sorted(range(len(self.stamped_ms)), key=self.stamped_ms.__getitem__)
        cut = len(order) // 4
        return tuple(order[cut : len(order) - cut])

    @property
    def pass_ms(self) -> float:
        """Mean of the middle half of the stamped passes; all phases add up to it."""
        return fmean(self.stamped_ms[number] for number in self.middle)

    @property
    def plain_ms(self) -> float:
        """Mean of the middle half of the plain passes: what a ledger's terms lead from and to."""
        order = sorted(self.plain.passes_ms)
        cut = len(order) // 4
        return fmean(order[cut : len(order) - cut])

    def phase_ms(self, phase: Phase, blocks: Collection[int | None] | None = None) -> float:
        """Time of one phase: of some blocks, (None,) for what is outside them, or of all."""
        return sum(
            fmean(item.passes_ms[number] for number in self.middle)
            for item in self.stamped
            if item.phase == phase and (blocks is None or item.block in blocks)
        )

    @property
    def reducing_ms(self) -> float:
        """Time spent on reducing tokens itself."""
        return sum(self.phase_ms(phase) for phase in REDUCING)

    @property
    def unknown_ms(self) -> float:
        """Time within no range: between blocks, or within one but in none of its phases."""
        return self.phase_ms("other")

    @property
    def busy_ms(self) -> float | None:
        """Time per pass in which the device worked, by the profiler; None on a CPU."""
        kernels = [item.ms for item in self.operators if item.kernel]
        return sum(kernels) if kernels else None

    @property
    def tracing(self) -> float | None:
        """How much longer a traced pass takes than a plain one; None when none was traced."""
        return median(self.traced_ms) / self.plain.median_ms if self.traced_ms else None
