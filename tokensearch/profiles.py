"""What a profile holds: where the time of a pass goes, by block, phase, operator and kernel.

Three instruments, from the truest to the finest, none of which is in another's figures:

* `plain`     whole passes by the clock, nothing attached that the user would not attach;
* `stamped`   passes that note the time at every border of a range, so that the parts add up to the
              pass; measured on two CPU cores, one takes 0.5 % longer than a plain pass of DeiT-S at
              batch 8, and up to 4 % longer than one of DeiT-T at batch 1;
* `operators` passes under the PyTorch profiler, which costs microseconds per operator.

Times are milliseconds.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, astuple, dataclass, field
from dataclasses import fields as dataclass_fields
from functools import cached_property
from math import inf
from statistics import fmean, median
from typing import Any, Literal, get_args

from tokensearch.errors import MeasurementError
from tokensearch.policy.file import policy_from_json
from tokensearch.records import (
    Cell,
    Conditions,
    Latency,
    cell_from_json,
    conditions_from_json,
    to_json,
)

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

Place = tuple[int | None, Phase]  # block, None outside the blocks

RANGE = "tokensearch"
FORMAT, VERSION = "tokensearch.profile", 1


def range_name(block: int, phase: Phase) -> str:
    """Name of the profiler range around one phase of one block, as the runtime writes it.

    >>> range_name(3, "mlp")
    'tokensearch.block.3.mlp'
    """
    return f"{RANGE}.block.{block}.{phase}"


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """Time of one phase of one block in each stamped pass; what is nested in it left out."""

    block: int | None  # None: outside the blocks
    phase: Phase
    passes_ms: tuple[float, ...]  # in the order taken; of equal length in all phases


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
    operators: tuple[Operator, ...] = ()
    traced_ms: tuple[float, ...] = ()  # whole passes under the profiler
    work: tuple[Work, ...] = ()
    ceilings: Ceilings | None = None
    peak_bytes: int | None = None  # highest use above what was in use before the pass
    sdpa: str | None = None  # kernel of the attention, with the mask that the policy adds, if any
    conditions: Conditions | None = None  # of the machine, while passes were timed

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


def profile_to_json(profile: Profile) -> dict[str, Any]:
    """Return a profile as `profile.json` holds it, with the figures readers look for first."""
    fields = {item.name: getattr(profile, item.name) for item in dataclass_fields(profile)}
    parts = {
        name: [_rounded(asdict(item)) for item in fields[name]]
        for name in ("stamped", "floor", "operators", "work")
    }
    sums = {phase: profile.phase_ms(phase) for phase in PHASES}
    return {
        "format": FORMAT,
        "version": VERSION,
        **fields,
        "pass_ms": profile.pass_ms,
        "phases_ms": {phase: ms for phase, ms in sums.items() if ms},
        "cell": to_json(profile.cell),
        "plain": to_json(profile.plain),
        "ceilings": None if profile.ceilings is None else asdict(profile.ceilings),
        "conditions": None if profile.conditions is None else asdict(profile.conditions),
        **parts,
    }


def profile_from_json(document: Mapping[str, Any]) -> Profile:
    """Return the profile that `profile_to_json` wrote; MeasurementError where it cannot be."""
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        raise MeasurementError(
            f"format is {document.get('format')!r}, version {document.get('version')!r}; "
            f"a profile has {FORMAT!r}, version {VERSION}"
        )
    try:
        return _checked(_profile(document))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, MeasurementError):
            raise
        raise MeasurementError(f"not a whole profile: {error}") from error


def _checked(profile: Profile) -> Profile:
    """Return a profile on whose figures everything can be computed that is computed of one."""
    blocks = policy_from_json(profile.policy).model.blocks
    if len(profile.patch_tokens) != blocks:
        raise MeasurementError(
            f"patch_tokens has {len(profile.patch_tokens)} counts; the policy's model has "
            f"{blocks} blocks"
        )
    split = (*profile.stamped, *profile.floor)
    known = {None, *range(blocks)}
    places: list[PhaseTime | Operator | Work] = [*split, *profile.operators, *profile.work]
    for place in places:
        if place.block not in known:
            raise MeasurementError(f"block {place.block!r} is none of {blocks}")
    passes, traced = len(profile.plain.passes_ms), len(profile.traced_ms)
    if not passes or not profile.stamped or any(len(one.passes_ms) != passes for one in split):
        raise MeasurementError("a profile must have passes, as many for every phase")
    if any(not traced or len(one.passes_ms) != traced for one in profile.operators):
        raise MeasurementError("operators must have passes, as many as were traced")
    _check_figures(profile)
    return profile


def _check_figures(profile: Profile) -> None:
    """Refuse what no clock and no count can have been; NaN is in no interval."""
    parts: tuple[PhaseTime | Operator, ...] = (
        *profile.stamped,
        *profile.floor,
        *profile.operators,
    )
    least = [
        *(ms for part in parts for ms in part.passes_ms),
        *(one.calls for one in profile.operators),
        *(figure for one in profile.work for figure in (one.flop, one.bytes)),
        profile.peak_bytes or 0,
    ]
    tops = () if profile.ceilings is None else astuple(profile.ceilings)
    above = [*profile.plain.passes_ms, *profile.traced_ms, *profile.stamped_ms, *tops]
    wrong = [one for one in least if not 0 <= one < inf]
    wrong += [one for one in above if not 0 < one < inf]
    if wrong:
        raise MeasurementError(
            f"a profile holds {wrong[0]!r}; times, counts and rates must be finite and not "
            "negative, those of whole passes above 0"
        )


def _profile(document: Mapping[str, Any]) -> Profile:
    known = {item.name for item in dataclass_fields(Profile)}
    ceilings = document["ceilings"]
    plain = document["plain"]
    fields = {name: value for name, value in document.items() if name in known}
    return Profile(
        **{
            **fields,
            "patch_tokens": tuple(map(int, document["patch_tokens"])),
            "cell": cell_from_json(document["cell"]),
            "plain": Latency(tuple(map(float, plain["passes_ms"])), plain["warmup"]),
            "stamped": tuple(_timed(PhaseTime, item) for item in document["stamped"]),
            "floor": tuple(_timed(PhaseTime, item) for item in document["floor"]),
            "operators": tuple(_timed(Operator, item) for item in document["operators"]),
            "traced_ms": tuple(map(float, document["traced_ms"])),
            "work": tuple(Work(**item) for item in document["work"]),
            "ceilings": None if ceilings is None else Ceilings(**ceilings),
            "conditions": conditions_from_json(document["conditions"]),
        }
    )


def _timed(kind: Any, item: Mapping[str, Any]) -> Any:
    if item["phase"] not in PHASES:
        raise MeasurementError(f"phase {item['phase']!r} is none of {', '.join(PHASES)}")
    return kind(**{**item, "passes_ms": tuple(map(float, item["passes_ms"]))})


def _rounded(item: dict[str, Any]) -> dict[str, Any]:
    """Times to the nanosecond: clocks tell no more, and files stay small."""
    if "passes_ms" in item:
        item["passes_ms"] = [round(ms, 6) for ms in item["passes_ms"]]
    return item
