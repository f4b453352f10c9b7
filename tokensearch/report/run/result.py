"""What a finished run found, read once from its files into what reports are made of."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from tokensearch.errors import PolicyError, RunError, TokensearchError
from tokensearch.policy import CONTROL, PRESETS, RANDOM, Evidence, Policy, Target, parse_target
from tokensearch.policy.file import policy_from_json
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.report.text import plain, short
from tokensearch.stats.interval import Interval

Json = Mapping[str, Any]
Outcome = Literal["met", "missed", "ambiguous", "unreduced"]

BASELINE = "baseline"
# What a search came upon by itself, by origin: its own proposals, and schedules drawn at random.
SEARCHED = {"sampler": "found", "seed": "found", "fastest": "found", "random": "drawn"}
PROOF = 0.05  # largest p-value called a proof: what the 95 % intervals stand for


@dataclass(frozen=True, slots=True)
class Measured:
    """A policy as its evidence has it."""

    policy: Policy
    median_ms: float
    baseline_ms: float
    accuracy: Interval
    ratio: Interval | None  # None where it was not timed in turn with the baseline
    difference: Interval | None  # of the accuracy, from the baseline's on the same images
    confirmed: bool


@dataclass(frozen=True, slots=True)
class Finalist:
    """A policy that was measured afresh before anything is said of it."""

    policy: Policy
    origin: str  # a key of SEARCHED or a preset's name
    search: Interval
    select: Interval
    report: Interval
    kl: float
    difference: Interval
    p_value: float
    ratio: Interval
    median_ms: float
    baseline_ms: float
    verdict: str
    on_front: bool

    @property
    def name(self) -> str:
        """The preset's name, or one made of the schedule's hash."""
        return name_of(self.policy, self.origin)

    @property
    def control(self) -> bool:
        """Whether it is there to compare with, and neither found nor published."""
        known = PRESETS.get(self.origin)
        return self.origin.startswith(RANDOM) or (known is not None and known.source == CONTROL)


@dataclass(frozen=True, slots=True)
class Lead:
    """Right answers of one policy beyond another's, on the same images."""

    difference: Interval
    p_value: float

    @property
    def proven(self) -> bool:
        """Whether one of the two is proven to be right more often."""
        apart = self.difference.low > 0 or self.difference.high < 0
        return apart and self.p_value < PROOF


@dataclass(frozen=True, slots=True)
class Rival:
    """What else would be as fast, without a token schedule."""

    name: str  # "160 px", or a smaller model's
    kind: str  # "resolution": the same model on smaller images; "model": a smaller one
    pixels: int
    report: Interval
    difference: Interval
    ratio: Interval
    median_ms: float
    baseline_ms: float
    lead: Lead | None  # of the answer over it; None without an answer

    @property
    def title(self) -> str:
        """What sentences call it."""
        if self.kind == "resolution":
            return f"the same model at {self.name}"
        return f"the smaller model {self.name}"


@dataclass(frozen=True, slots=True)
class RunFindings:
    """A run's result, and what it was asked."""

    run: Json
    target: Target
    outcome: Outcome
    limit_ms: float
    baseline_ms: float
    labelled: bool
    finalists: tuple[Finalist, ...]
    answer: Finalist | None
    best_preset: Finalist | None
    lead: Lead | None  # of the answer over the best preset; None where nobody compared them
    rivals: tuple[Rival, ...]
    cautions: tuple[str, ...]
    moved: float  # share by which the baseline's speed changed, finalists and controls

    @property
    def measure(self) -> str:
        """What right answers are a measure of."""
        return measure(labelled=self.labelled)

    @property
    def batch(self) -> int:
        """Images per pass."""
        return int(self.run["cell"]["batch"])

    def origin_of(self, policy: Policy) -> str:
        """Where a member of the front came from."""
        wanted = policy.schedule_hash
        found = [one.origin for one in self.finalists if one.policy.schedule_hash == wanted]
        return found[0] if found else "sampler"

    def is_answer(self, policy: Policy) -> bool:
        """Whether the policy is the one that the run hands back."""
        return self.answer is not None and policy.schedule_hash == self.answer.policy.schedule_hash


def measure(*, labelled: bool) -> str:
    """Name what the share of right answers means, with labels and without.

    >>> measure(labelled=False)
    'agreement with the baseline'
    """
    return "accuracy" if labelled else "agreement with the baseline"


def name_of(policy: Policy, origin: str) -> str:
    """Name a policy: published ones have a name, others get one from their hash."""
    if not policy.reduces:
        return BASELINE
    kind = SEARCHED.get(origin)
    return origin if kind is None else f"{kind} {short(policy.schedule_hash)}"


def read_findings(run: Json) -> RunFindings:
    """Read run.json's document; RunError when the search has not ended or a field is amiss."""
    result = run.get("result")
    if result is None:
        raise RunError("the search of this run has not ended; the same command goes on with it")
    with reading(RunError, "run.json"):
        finalists = tuple(_finalist(item) for item in result["finalists"])
        by_hash = {one.policy.schedule_hash: one for one in finalists}
        best = result["best_preset"]
        preset = None if best is None else by_hash.get(best["schedule_hash"])
        return RunFindings(
            run=run,
            target=parse_target(run["settings"]["target"]),
            outcome=result["outcome"],
            limit_ms=float(result["limit_ms"]),
            baseline_ms=float(result["baseline_ms"]),
            labelled=bool(run["data"]["labelled"]),
            finalists=finalists,
            answer=by_hash.get(result["answer"]),
            best_preset=None if preset is None or preset.control else preset,
            lead=None if best is None else _lead(best["lead"]),
            rivals=tuple(_rival(one) for one in result.get("rivals", ())),
            cautions=_cautions(run),
            moved=float(result["baseline_moved"]["finalists"]),
        )


def _cautions(run: Json) -> tuple[str, ...]:
    """What is doubtful about the timings, and before it that there was no use in them.

    Files of before launches were looked at say nothing of them.
    """
    found = run.get("launching")
    launching = found and LaunchCost(float(found["host_ms"]), float(found["pass_ms"]))
    bound = (launching.sentence,) if launching and launching.bound else ()
    return (*bound, *map(plain, run["result"]["cautions"]))


def _lead(paired: Json | None) -> Lead | None:
    if paired is None:
        return None
    return Lead(interval(paired, "difference"), float(paired["p_value"]))


def _rival(item: Json) -> Rival:
    comparison = item["comparison"]
    return Rival(
        name=plain(item["name"]),
        kind=str(item["kind"]),
        pixels=int(item["pixels"]),
        report=interval(item["report"], "top1"),
        difference=interval(item["paired"], "difference"),
        ratio=interval(comparison, "ratio"),
        median_ms=float(comparison["candidate"]["median_ms"]),
        baseline_ms=float(comparison["baseline"]["median_ms"]),
        lead=_lead(item["lead"]),
    )


def read_measured(policy: Policy, evidence: Evidence) -> Measured:
    """Read one piece of a policy's evidence; PolicyError when a field is amiss."""
    with reading(PolicyError, "evidence"):
        comparison, paired = evidence.extra.get("comparison"), evidence.extra.get("paired")
        return Measured(
            policy=policy,
            median_ms=evidence.median_ms,
            baseline_ms=float(evidence.baseline["median_ms"]),
            accuracy=interval(evidence.accuracy, "top1"),
            ratio=None if comparison is None else interval(comparison, "ratio"),
            difference=None if paired is None else interval(paired, "difference"),
            confirmed=evidence.confirmed,
        )


def _finalist(item: Json) -> Finalist:
    comparison, paired = item["comparison"], item["paired"]
    return Finalist(
        policy=policy_from_json(item["policy"]),
        origin=plain(item["origin"]),
        search=interval(item["search"], "top1"),
        select=interval(item["select"], "top1"),
        report=interval(item["report"], "top1"),
        kl=float(item["report"]["kl"]),
        difference=interval(paired, "difference"),
        p_value=float(paired["p_value"]),
        ratio=interval(comparison, "ratio"),
        median_ms=float(comparison["candidate"]["median_ms"]),
        baseline_ms=float(comparison["baseline"]["median_ms"]),
        verdict=str(comparison["verdict"]),
        on_front=bool(item["on_front"]),
    )


def interval(record: Json, name: str) -> Interval:
    """Read a figure and its ends, as records spell them."""
    return Interval(float(record[name]), float(record["low"]), float(record["high"]))


@contextmanager
def reading(kind: type[PolicyError | RunError], where: str) -> Iterator[None]:
    """Turn what a file lacks into one sentence that says where."""
    try:
        yield
    except KeyError as error:
        raise kind(f"{where} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TokensearchError):  # some are ValueErrors too, and say it better
            raise
        raise kind(f"{where} has a field of another type: {error}") from error
