"""What was observed, as frozen records with units. Everything derivable is computed, not stored.

Times are milliseconds throughout. `to_json` gives what files hold: the fields, and the derived
figures people look for, so that a reader needs no formulas of ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, is_dataclass
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from functools import cache, partial
from math import ceil
from statistics import median, quantiles
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from tokensearch.errors import MeasurementError
from tokensearch.policy import Policy, Target, parse_target
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.records.embedding import EmbeddingAccuracy
from tokensearch.stats.interval import Interval

_Record = TypeVar("_Record")

OMIT_NONE: Mapping[str, Any] = {"omit_none": True}  # of a field that older files lack
SIGNIFICANT = 0.05  # largest p-value called significant: what the 95 % intervals stand for

Backend = Literal["eager", "compile", "cudagraph", "compile-cudagraph", "onnxruntime", "openvino"]
COMPILED: tuple[Backend, ...] = ("compile", "compile-cudagraph")
REPLAYED: tuple[Backend, ...] = ("cudagraph", "compile-cudagraph")
EXPORTED: tuple[Backend, ...] = ("onnxruntime", "openvino")  # libraries that run an exported file
Cache = Literal["warm", "flushed"]
Memory = Literal["kept", "system"]
Verdict = Literal["faster", "slower", "same", "ambiguous"]
AccuracyKind = Literal["top1", "agreement"]
# The same model on smaller images; a smaller model; baseline or answer as they could also be run.
AlternativeKind = Literal["resolution", "model", "settings"]


class Caution(StrEnum):
    """Reasons to distrust a timing, each with what to do about it."""

    SLOW_START = "the first counted pass was slow: repeat, for the machine had not settled"
    WIDE_SPREAD = "passes differ widely: stop other work on the machine, or time more pairs"
    DRIFT = "the baseline drifted while timing: let the machine settle, and repeat"
    THROTTLED = "the machine changed its clocks while timing: let it cool or fix them, and repeat"
    FEW_PASSES = "few passes were timed: allow more time"
    BUSY = "other programs worked on the machine while timing: stop them, and repeat"
    COARSE_CLOCK = "a pass is too short for the clock: time a larger batch"
    PROFILER_DISAGREES = "the profiler and the clock disagree: trust the clock"
    NO_KERNELS = "the profiler saw no kernels of the GPU: end other profilers of it, and repeat"
    MOVED_BASELINE = (
        "the baseline's speed changed between timings: compare ratios, not milliseconds"
    )
    UNLIKE_ITSELF = "the baseline differed from itself: repeat on a quieter machine"


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and software that a latency belongs to. Equal fingerprints may be compared."""

    WRITTEN: ClassVar = (
        *("name", "processor", "cores", "accelerator", "system", "versions"),
        *("governor", "driver", "max_clock_mhz", "power_limit_w"),
    )
    OPTIONAL: ClassVar[tuple[str, ...]] = ()  # two that are compared must be known alike
    processor: str  # CPU model name
    cores: int  # usable by this process
    accelerator: str | None  # GPU name, None on a CPU
    system: str  # operating system and architecture
    versions: tuple[tuple[str, str], ...] = field(metadata={"write": dict})  # ("torch", "2.9.0")
    governor: str | None = None  # of the CPU's clocks; None where the system does not say
    driver: str | None = None  # of the GPU; this and what follows is None without NVML
    max_clock_mhz: int | None = None  # of the GPU's multiprocessors
    power_limit_w: float | None = None  # of the GPU, as enforced

    @property
    def name(self) -> str:
        """What people call it."""
        return self.accelerator or f"{self.processor}, {self.cores} cores"

    @property
    def software(self) -> tuple[tuple[str, str], ...]:
        """The versions of what runs here: CUDA, which torch may be built with, only on a GPU."""
        unused = {"cuda", "cudnn"} if self.accelerator is None else set[str]()
        return tuple((name, version) for name, version in self.versions if name not in unused)


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that a latency belongs to besides the policy."""

    OPTIONAL: ClassVar = ("matmul", "kernels", "columns")  # which older cells do not say
    device: str  # "cpu", "cuda", or "cuda:1" where there are several GPUs
    dtype: str  # "float32", ...
    batch: int  # images per pass
    resolution: int  # rows of pixels
    backend: Backend  # how the model is run (`runtime.backed`)
    threads: int  # intra-op threads of torch
    machine: Machine
    memory: Memory = "system"  # between passes: "kept" by the process, or by the system's habit
    cache: Cache = "warm"  # "flushed": the device's L2 was emptied before each pass
    attention: str | None = None  # kernel of the baseline's attention; None: not asked
    matmul: str | None = None  # of float32 on a GPU: products in "tf32" or in full, "ieee"
    kernels: str | None = None  # of token operators on a GPU: "triton" (fused) or "torch"
    columns: int | None = field(default=None, metadata=OMIT_NONE)  # where images are not square


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of whole passes, one batch each, after warm-up, in one cell."""

    WRITTEN: ClassVar = ("median_ms", "spread_ms", "passes_ms", "warmup")
    passes_ms: tuple[float, ...]  # every counted pass in the order taken; none discarded
    warmup: int  # uncounted passes before the first

    @property
    def median_ms(self) -> float:
        """Middle pass. Passes are skewed, so the mean is not offered."""
        return median(self.passes_ms)

    @property
    def spread_ms(self) -> float:
        """Distance of the quartiles; 0 for a single pass."""
        if len(self.passes_ms) < 2:
            return 0.0
        low, _, high = quantiles(self.passes_ms, n=4, method="inclusive")
        return high - low

    def percentile_ms(self, percent: float) -> float | None:
        """Return the pass that `percent` of them stay within; None where too few were timed.

        Nearest rank: always a pass that happened. `passes_for` says how many it takes.
        """
        if len(self.passes_ms) < passes_for(percent):
            return None
        return sorted(self.passes_ms)[ceil(percent / 100 * len(self.passes_ms)) - 1]


def passes_for(percent: float) -> int:
    """Return the fewest passes that a percentile from 50 to below 100 may be quoted of.

    So many that at most one of them would lie above it by a chance of 1 %. Source: MLPerf's early
    stopping, whose numbers these are.

    >>> [passes_for(percent) for percent in (90, 95, 99)]
    [64, 130, 662]
    """
    if not 50 <= percent < 100:
        raise MeasurementError(f"a percentile must be at least 50 and below 100, got {percent}")
    above = 1 - percent / 100
    passes = 1
    while (1 - above) ** (passes - 1) * (1 - above + passes * above) > 0.01:
        passes += 1
    return passes


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a machine was like while something was timed: state, which decides no equality."""

    tick_ms: float  # smallest step of the clock
    others: float | None  # share of the usable cores' time that went to other programs
    gpu_clock: float | None = None  # lowest seen, as a share of the highest it may have
    gpu_throttled: tuple[str, ...] = ()  # NVML's reasons for lower clocks: "power", ...
    gpu_temperature_c: int | None = None  # highest seen
    gpu_processes: int | None = None  # on it, besides this one


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate timed in turn with the baseline, in the same process and cell."""

    baseline: Latency
    candidate: Latency
    ratio: float  # median of candidate / median of baseline; below 1 is faster
    low: float  # bootstrap interval of the ratio
    high: float
    level: float  # its nominal coverage, 0.95
    verdict: Verdict
    cautions: tuple[Caution, ...] = ()
    conditions: Conditions | None = None  # None: nobody watched

    @property
    def interval(self) -> Interval:
        """The ratio with its interval."""
        return Interval(self.ratio, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers on one split, with a Wilson score interval."""

    WRITTEN: ClassVar = (
        *("top1", "kind", "split", "split_hash", "images", "right", "low", "high", "level"),
        *("kl", "ce", "agreed"),
    )
    kind: AccuracyKind  # "top1" against labels, "agreement" with the baseline
    split: str  # "search", "select" or "report"
    split_hash: str
    images: int
    right: int
    low: float  # interval of `top1`
    high: float
    level: float
    kl: float  # mean KL divergence from the baseline's prediction, nats
    ce: float  # mean cross-entropy with the label, or with the baseline's answer, nats
    agreed: int  # answers that are the baseline's

    @property
    def top1(self) -> float:
        """Share of right answers, 0 to 1."""
        return self.right / self.images

    share = top1

    @property
    def interval(self) -> Interval:
        """The share of right answers with its interval."""
        return Interval(self.top1, self.low, self.high)

    @property
    def divergence(self) -> float:
        """Mean distance from the baseline's predictions, nats."""
        return self.kl


Score = Accuracy | EmbeddingAccuracy  # of predictions, or of embeddings


@dataclass(frozen=True, slots=True)
class PairedAccuracy:
    """Two models on the same images: how many each alone gets right, and what that proves."""

    images: int
    only_baseline: int
    only_candidate: int
    p_value: float  # exact two-sided McNemar test
    difference: float  # candidate minus baseline, share of images
    low: float  # interval of the difference
    high: float
    level: float

    @property
    def interval(self) -> Interval:
        """The difference with its interval."""
        return Interval(self.difference, self.low, self.high)

    @property
    def significant(self) -> bool:
        """Whether one of the two is right significantly more often."""
        return self.interval.significant and self.p_value < SIGNIFICANT


# "raced": stopped, since by the ranks of its first images it is likely worse than a faster one
TrialState = Literal["complete", "raced"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One proposal of the search and what became of it."""

    number: int
    origin: str  # "sampler", "seed", "random", or a preset's name
    schedule_hash: str
    state: TrialState
    predicted: float  # ratio to the baseline's latency, before anything was run
    comparison: Comparison | None  # None: others were better, or it would have taught little
    accuracy: Score  # on the images of `search` that it took
    seconds: float  # what it cost
    policy: dict[str, Any] = field(hash=False)  # as a policy file spells it

    @property
    def ratio(self) -> float:
        """Latency as a share of the baseline's: as timed, else as predicted."""
        return self.predicted if self.comparison is None else self.comparison.ratio


def to_json(record: Any) -> Any:
    """Return a record as files hold it: its fields, and derived figures that readers look for.

    A class with more than its fields to say names all in `WRITTEN`, in order. A field's metadata
    may give it another `key`, a function that will `write` it, or be `OMIT_NONE`.
    """
    kind: Any = type(record)
    if kind in _OWN_WRITERS:
        return _OWN_WRITERS[kind](record)
    if is_dataclass(record):
        return {
            key: write(getattr(record, name))
            for key, name, write, omit in _layout(kind)
            if not omit or getattr(record, name) is not None
        }
    if isinstance(record, Mapping):
        return {name: to_json(item) for name, item in record.items()}
    return [to_json(item) for item in record] if isinstance(record, tuple | list) else record


def from_json(kind: type[_Record], written: Mapping[str, Any]) -> _Record:
    """Return the record that `to_json` wrote; KeyError names what is missing.

    What was derived is derived anew; fields of newer releases are passed over.
    """
    make: Any = kind
    values: dict[str, Any] = {
        name: read(written[key])
        for name, key, needed, read in _readers(make)
        if needed or key in written
    }
    record: _Record = make(**values)
    return record


@cache
def _layout(kind: Any) -> tuple[tuple[str, str, Callable[[Any], Any], bool], ...]:
    """Key, attribute, what writes it, and whether None is left out, of all that is written."""
    known: dict[str, Mapping[str, Any]]
    known = {item.name: item.metadata for item in dataclass_fields(kind)}
    written = [(name, known.get(name, {})) for name in getattr(kind, "WRITTEN", known)]
    return tuple(
        (how.get("key", name), name, how.get("write", to_json), "omit_none" in how)
        for name, how in written
    )


@cache
def _readers(kind: Any) -> tuple[tuple[str, str, bool, Callable[[Any], Any]], ...]:
    """Name, key, whether it must be there, and what reads it, of all fields of a record."""
    hints = get_type_hints(kind)
    defaults = [item.name for item in dataclass_fields(kind) if _has_default(item)]
    optional = getattr(kind, "OPTIONAL", defaults)
    return tuple(
        (
            item.name,
            item.metadata.get("key", item.name),
            item.name not in optional,
            _reader(hints[item.name]),
        )
        for item in dataclass_fields(kind)
    )


def _has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return what makes the value of a field of this type from what is written."""
    kind: Any = get_origin(hint) or hint
    inner = get_args(hint)
    if kind in (Union, UnionType):  # X | None, or records of which one has what is written
        return partial(_read_one_of, [item for item in inner if item is not type(None)])
    if kind is tuple:  # a mapping, where pairs were written as one
        read = _reader(inner[0])
        return lambda written: tuple(
            map(read, written.items() if isinstance(written, Mapping) else written)
        )
    if kind is Mapping:
        read = _reader(inner[1])
        return lambda written: {name: read(value) for name, value in written.items()}
    own: Callable[[Any], Any] = _unchanged
    if is_dataclass(kind):
        own = partial(from_json, hint)
    return _OWN_READERS.get(kind, own)


def _read_one_of(kinds: Sequence[Any], written: Any) -> Any:
    """Read the first of some kinds whose fields are all there; None as it is."""
    if written is None:
        return None
    *others, last = kinds
    fitting = (kind for kind in others if _needed(kind) <= written.keys())
    return _reader(next(fitting, last))(written)


@cache
def _needed(kind: Any) -> frozenset[str]:
    """Keys that a record cannot be read without."""
    return frozenset(key for _, key, needed, _ in _readers(kind) if needed)


def _unchanged(written: Any) -> Any:
    return written


_OWN_WRITERS: Mapping[Any, Callable[[Any], Any]] = {
    Policy: policy_to_json,
    Target: str,
    Caution: lambda caution: caution.name.lower(),
}
_OWN_READERS: Mapping[Any, Callable[[Any], Any]] = {
    Policy: policy_from_json,
    Target: parse_target,
    Caution: lambda written: Caution[written.upper()],
    float: float,
}
