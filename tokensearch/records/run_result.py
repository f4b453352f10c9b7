"""What run.json holds: what was asked of a run, where and on what, and what came of it.

The fields of these records are those of the file, version 1. What may be missing from files of
older releases has a default; `run-v1.schema.json` says the same to other readers.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tokensearch.documents import validate
from tokensearch.errors import RunError
from tokensearch.notebook import html_table
from tokensearch.policy import ModelSpec, Outcome, Policy
from tokensearch.records.checks import RUN, RUN_FORMAT, RUN_VERSION
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import (
    OMIT_NONE,
    AlternativeKind,
    Cell,
    Comparison,
    PairedAccuracy,
    Score,
    from_json,
    to_json,
)
from tokensearch.records.run_settings import SearchBudget, SearchSettings

SCHEMA_FILE = Path(__file__).with_name("run-v1.schema.json")

EXIT_CODES: Mapping[Outcome, int] = {"met": 0, "unreduced": 0, "missed": 3, "ambiguous": 4}


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Digests of what decides a model's predictions, apart, so that a difference can be named."""

    weights: str
    architecture: str
    code: str
    versions: str  # "torch 2.15.0, timm 1.0.30, tokensearch 0.1.0"

    @property
    def digest(self) -> str:
        """All of it."""
        return f"sha256:{hashlib.sha256(repr(asdict(self)).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """When, by what program and on which computer a run was made."""

    started: str  # ISO 8601 in UTC; of the process that went on with it last
    program: str  # "tokensearch 0.1.0"
    host: str  # name of the computer
    memory_bytes: int | None  # that the process may use; None where the system does not say
    gpu_memory_bytes: int | None = None  # of the GPU that it is timed on


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """Which images a split has."""

    images: int
    digest: str
    contents: str | None = field(default=None, metadata=OMIT_NONE)  # beginnings of images' digests
    of: int | None = field(default=None, metadata=OMIT_NONE)  # so many were asked for


@dataclass(frozen=True, slots=True)
class RunData:
    """The images of a run."""

    name: str
    labelled: bool
    splits: Mapping[str, SplitInfo] = field(hash=False)  # by purpose: search, select, report

    @property
    def report(self) -> SplitInfo:
        """The images that are quoted."""
        return self.splits["report"]


@dataclass(frozen=True, slots=True)
class SmallerModel:
    """The model that was asked for to compare with."""

    name: str
    key: str  # digest of the model, and how its images are prepared


@dataclass(frozen=True, slots=True)
class ChoiceFigures:
    """What a policy is chosen by besides accuracy on `select` and latency, of predictions."""

    right: str  # images of `select` that it got right: `policy.RightImages.hex`
    kl_low: float  # interval of the mean divergence on `select`, nats
    kl_high: float
    groups: str | None = field(default=None, metadata=OMIT_NONE)  # `RightImages.groups_hex`

    @property
    def divergence(self) -> tuple[float, float]:
        """Interval of the mean divergence."""
        return self.kl_low, self.kl_high


@dataclass(frozen=True, slots=True)
class EmbeddingChoice:
    """Likewise, of embeddings."""

    right: str  # images of `select` that it got right: `policy.RightImages.hex`
    cosine_low: float  # interval of the mean cosine on `select`
    cosine_high: float
    groups: str | None = field(default=None, metadata=OMIT_NONE)  # `RightImages.groups_hex`

    @property
    def divergence(self) -> tuple[float, float]:
        """Interval of the mean distance from the baseline's embeddings."""
        return 1.0 - self.cosine_high, 1.0 - self.cosine_low


AnyChoice = ChoiceFigures | EmbeddingChoice


@dataclass(frozen=True, slots=True)
class Finalist:
    """A policy that was scored on fresh images and timed afresh before anything is said of it."""

    WRITTEN: ClassVar = (
        *("schedule_hash", "origin", "policy", "search", "select", "report"),
        *("paired", "comparison", "on_front", "choice", "earlier"),
    )
    origin: str  # of its trial: "sampler", "seed", "random", or a preset's name
    policy: Policy
    search: Score
    select: Score
    report: Score
    paired: PairedAccuracy  # with the baseline, on `report`
    comparison: Comparison
    on_front: bool
    choice: AnyChoice | None = field(default=None, metadata=OMIT_NONE)
    earlier: Comparison | None = field(default=None, metadata=OMIT_NONE)  # the session before

    @property
    def schedule_hash(self) -> str:
        """What it is known by."""
        return self.policy.schedule_hash


@dataclass(frozen=True, slots=True)
class Alternative:
    """What else would be as fast, without a token schedule, with all that was measured of it."""

    name: str  # "160 px", or a smaller model's
    kind: AlternativeKind
    pixels: int  # side of the images it takes
    report: Score
    paired: PairedAccuracy  # with the baseline, on the same images
    comparison: Comparison  # with the baseline
    lead: PairedAccuracy | None  # the answer against it, on the same images; None without an answer


@dataclass(frozen=True, slots=True)
class Rival:
    """A finalist that the answer is compared with."""

    name: str  # its origin
    schedule_hash: str
    lead: PairedAccuracy | None  # the answer against it, on `report`; None: not compared


@dataclass(frozen=True, slots=True)
class TrialCounts:
    """What became of the proposals."""

    complete: int = 0  # ran on every image
    raced: int = 0  # stopped: likely worse than something faster
    out_of_reach: int = 0  # predicted too slow, and not run
    duplicate: int = 0  # proposed again, and not repeated


@dataclass(frozen=True, slots=True)
class BaselineMoved:
    """Shares by which the baseline's speed changed."""

    finalists: float  # while finalists and alternatives were timed
    search: float | None = field(default=None, metadata=OMIT_NONE)

    WRITTEN: ClassVar = ("search", "finalists")


@dataclass(frozen=True, slots=True)
class ForecastError:
    """How well latencies were predicted."""

    error: float  # relative, on average
    timed: int  # timings that it was learned from


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """What a run found."""

    WRITTEN: ClassVar = (
        *("outcome", "exit_code", "limit_ms", "baseline_ms", "answer_hash", "as_good"),
        "promising",
        *("best_preset", "equal_preset", "best_random"),
        *("finalists", "alternatives", "cautions", "search_seconds", "trials", "baseline_moved"),
        *("forecast", "seconds"),
    )
    outcome: Outcome
    limit_ms: float | None  # the target; None where only the loss was bounded
    baseline_ms: float
    answer_hash: str | None = field(metadata={"key": "answer"})
    best_preset: Rival | None  # the best published schedule that meets the target
    finalists: tuple[Finalist, ...]  # fastest first
    cautions: tuple[str, ...]
    search_seconds: float
    trials: TrialCounts
    baseline_moved: BaselineMoved
    forecast: ForecastError
    seconds: float  # of the whole run
    alternatives: tuple[Alternative, ...] = field(default=(), metadata={"key": "rivals"})
    # The fastest published schedule as good as the answer; the best random one on target.
    equal_preset: Rival | None = field(default=None, metadata=OMIT_NONE)
    best_random: Rival | None = field(default=None, metadata=OMIT_NONE)
    # Schedules that cannot be told apart from the best under the target, fastest first.
    as_good: tuple[str, ...] | None = field(default=None, metadata=OMIT_NONE)
    # The schedule that is better than the answer, and likely but not sure to be what was asked for.
    promising: str | None = field(default=None, metadata=OMIT_NONE)

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def _repr_html_(self) -> str:
        """Return a row per finalist, for notebooks."""
        columns = ("policy", "origin", "ms", "of baseline", "right", "on the front")
        return html_table(self._title, columns, map(_html_row, self.finalists))

    @property
    def _title(self) -> str:
        answer = self.answer
        said = "no answer"
        if answer is not None:
            took = f"{answer.comparison.candidate.median_ms:.3g} ms, {answer.comparison.ratio:.2f}x"
            said = f"answer {_short(answer.schedule_hash)}, {took} of the baseline"
        return f"RunResult {self.outcome}: {said}; {len(self.finalists)} finalists"

    @property
    def exit_code(self) -> int:
        """What the command line exits with."""
        return EXIT_CODES[self.outcome]

    @property
    def answer(self) -> Finalist | None:
        """The policy that the run hands back."""
        return self.finalist(self.answer_hash)

    def finalist(self, schedule_hash: str | None) -> Finalist | None:
        """Return the finalist with a schedule."""
        return next((f for f in self.finalists if f.schedule_hash == schedule_hash), None)


def _short(schedule_hash: str) -> str:
    return schedule_hash.removeprefix("sha256:")[:8]


def _html_row(finalist: Finalist) -> tuple[str, ...]:
    return (
        _short(finalist.schedule_hash),
        f"{finalist.origin:.60}",
        f"{finalist.comparison.candidate.median_ms:.3g}",
        f"{finalist.comparison.ratio:.2f}x",
        f"{100 * finalist.report.interval.value:.1f} %",
        "yes" if finalist.on_front else "no",
    )


@dataclass(frozen=True, slots=True)
class RunDocument:
    """The whole of run.json."""

    settings: SearchSettings
    budget: SearchBudget
    command: str
    model: ModelSpec
    cell: Cell
    data: RunData
    smaller: SmallerModel | None = None
    identity: ModelIdentity | None = field(default=None, metadata=OMIT_NONE)
    environment: RunEnvironment | None = field(default=None, metadata=OMIT_NONE)
    result: RunResult | None = None  # None until the search has ended
    launching: LaunchCost | None = None  # what launching a pass of the baseline takes
    retargeted: str | None = field(default=None, metadata=OMIT_NONE)  # folder of the run timed anew
    # Resolutions, number types and backends that the answer was tried in, beside the run's own.
    other_settings: tuple[str, ...] | None = field(default=None, metadata=OMIT_NONE)

    WRITTEN: ClassVar = (
        *("settings", "budget", "smaller", "command", "model", "identity", "environment"),
        *("cell", "data", "result", "launching", "retargeted", "other_settings"),
    )

    @property
    def finished(self) -> RunResult:
        """The result; RunError when there is none yet."""
        if self.result is None:
            raise RunError("the search of this run has not ended; the same command goes on with it")
        return self.result

    def to_json(self) -> dict[str, Any]:
        """Return what the file holds."""
        return {"format": RUN_FORMAT, "version": RUN_VERSION, **to_json(self)}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "RunDocument":
        """Return what a file holds; RunError, with the field, where it is amiss.

        Fields of newer releases are passed over.
        """
        if written.get("format") != RUN_FORMAT:
            raise RunError("the file is not of a tokensearch run")
        if written.get("version") != RUN_VERSION:
            raise RunError(f"version is {written.get('version')!r:.60}; known is {RUN_VERSION}")
        validate(written, RUN, "the run", RunError)
        document = from_json(cls, written)
        _check_leads(document.result)
        return document


def _check_leads(result: RunResult | None) -> None:
    """Refuse alternatives that the answer is not compared with, where there is one."""
    if result is None or result.answer_hash is None:
        return
    for index, alternative in enumerate(result.alternatives):
        if alternative.lead is None:
            raise RunError(
                f"result.rivals[{index}].lead is null; it must compare the answer with it"
            )
