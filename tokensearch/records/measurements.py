"""What was observed, as frozen records with units. Everything derivable is computed, not stored.

Times are milliseconds throughout. `to_json` gives what files hold: the fields, and the derived
figures people look for, so that a reader needs no formulas of ours.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from math import ceil
from statistics import median, quantiles
from typing import Any, Literal

from tokensearch.errors import MeasurementError

Backend = Literal["eager", "compile", "cudagraph", "compile-cudagraph"]
COMPILED: tuple[Backend, ...] = ("compile", "compile-cudagraph")
REPLAYED: tuple[Backend, ...] = ("cudagraph", "compile-cudagraph")
Cache = Literal["warm", "flushed"]
Memory = Literal["kept", "system"]
Verdict = Literal["faster", "slower", "same", "ambiguous"]
AccuracyKind = Literal["top1", "agreement"]


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

    processor: str  # CPU model name
    cores: int  # usable by this process
    accelerator: str | None  # GPU name, None on a CPU
    system: str  # operating system and architecture
    versions: tuple[tuple[str, str], ...]  # ("torch", "2.9.0"), ...
    governor: str | None = None  # of the CPU's clocks; None where the system does not say
    driver: str | None = None  # of the GPU; this and what follows is None without NVML
    max_clock_mhz: int | None = None  # of the GPU's multiprocessors
    power_limit_w: float | None = None  # of the GPU, as enforced

    @property
    def name(self) -> str:
        """What people call it."""
        return self.accelerator or f"{self.processor}, {self.cores} cores"


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that a latency belongs to besides the policy."""

    device: str  # "cpu", "cuda", or "cuda:1" where there are several GPUs
    dtype: str  # "float32", ...
    batch: int  # images per pass
    resolution: int  # pixels, square
    backend: Backend  # how the model is run (`runtime.backed`)
    threads: int  # intra-op threads of torch
    machine: Machine
    memory: Memory = "system"  # between passes: "kept" by the process, or by the system's habit
    cache: Cache = "warm"  # "flushed": the device's L2 was emptied before each pass
    attention: str | None = None  # kernel of the baseline's attention; None: not asked
    matmul: str | None = None  # of float32 on a GPU: products in "tf32" or in full, "ieee"


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of whole passes, one batch each, after warm-up, in one cell."""

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


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right answers on one split, with a Wilson score interval."""

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


# "raced": stopped once its first images proved that another is both faster and better
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
    accuracy: Accuracy  # on the images of `search` that it took
    seconds: float  # what it cost
    policy: dict[str, Any] = field(hash=False)  # as a policy file spells it

    @property
    def ratio(self) -> float:
        """Latency as a share of the baseline's: as timed, else as predicted."""
        return self.predicted if self.comparison is None else self.comparison.ratio


Record = Machine | Cell | Latency | Comparison | Accuracy | PairedAccuracy | Trial


def to_json(record: Record) -> dict[str, Any]:
    """Return a record's fields, with the derived figures that readers look for first."""
    fields = asdict(record)
    match record:
        case Latency():
            return {"median_ms": record.median_ms, "spread_ms": record.spread_ms, **fields}
        case Comparison():
            return fields | {
                "baseline": to_json(record.baseline),
                "candidate": to_json(record.candidate),
                "cautions": [caution.name.lower() for caution in record.cautions],
            }
        case Accuracy():
            return {"top1": record.top1, **fields}
        case Machine():
            return {"name": record.name, **fields, "versions": dict(record.versions)}
        case Cell():
            return fields | {"machine": to_json(record.machine)}
        case Trial():
            comparison = record.comparison
            return fields | {
                "comparison": None if comparison is None else to_json(comparison),
                "accuracy": to_json(record.accuracy),
            }
        case _:
            return fields


def trial_from_json(written: Mapping[str, Any]) -> Trial:
    """Return the Trial that `to_json` wrote."""
    comparison = written["comparison"]
    return Trial(
        **{
            **_known(Trial, written),
            "accuracy": accuracy_from_json(written["accuracy"]),
            "comparison": None if comparison is None else _comparison(comparison),
        }
    )


def cell_from_json(written: Mapping[str, Any]) -> Cell:
    """Return the Cell that `to_json` wrote; KeyError names what is missing."""
    written = {"matmul": None, **written}  # which older cells do not say
    fields = {item.name: written[item.name] for item in dataclass_fields(Cell)}
    return Cell(**{**fields, "machine": machine_from_json(written["machine"])})


def machine_from_json(written: Mapping[str, Any]) -> Machine:
    """Return the Machine that `to_json` wrote; KeyError names what is missing."""
    fields = {item.name: written[item.name] for item in dataclass_fields(Machine)}
    return Machine(**{**fields, "versions": tuple(written["versions"].items())})


def _comparison(written: Mapping[str, Any]) -> Comparison:
    fields = {
        **_known(Comparison, written),
        "baseline": latency_from_json(written["baseline"]),
        "candidate": latency_from_json(written["candidate"]),
        "cautions": tuple(Caution[name.upper()] for name in written.get("cautions", ())),
        "conditions": conditions_from_json(written.get("conditions")),
    }
    return Comparison(**fields)


def conditions_from_json(written: Mapping[str, Any] | None) -> Conditions | None:
    """Return the Conditions that `to_json` wrote, None where nobody watched."""
    if written is None:
        return None
    throttled = tuple(written.get("gpu_throttled", ()))
    return Conditions(**{**_known(Conditions, written), "gpu_throttled": throttled})


def latency_from_json(written: Mapping[str, Any]) -> Latency:
    """Return the Latency that `to_json` wrote, without what it derived."""
    return Latency(tuple(map(float, written["passes_ms"])), written["warmup"])


def accuracy_from_json(written: Mapping[str, Any]) -> Accuracy:
    """Return the Accuracy that `to_json` wrote, without what it derived."""
    return Accuracy(**_known(Accuracy, written))


def paired_from_json(written: Mapping[str, Any]) -> PairedAccuracy:
    """Return the Paired whose fields were written."""
    return PairedAccuracy(**_known(PairedAccuracy, written))


def _known(kind: type[Record] | type[Conditions], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the written fields of a record; KeyError where one without a default is missing."""
    return {
        item.name: written[item.name]
        for item in dataclass_fields(kind)
        if item.name in written or (item.default is MISSING and item.default_factory is MISSING)
    }
