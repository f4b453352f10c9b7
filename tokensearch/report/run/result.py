"""What reports call the parts of a run; and what the evidence of a policy says."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokensearch.errors import PolicyError, RunError, TokensearchError
from tokensearch.policy import EMBEDDING_OBJECTIVES, Evidence, Objective, Policy, is_control
from tokensearch.records.measurements import Comparison
from tokensearch.records.run_result import Finalist, RunDocument, RunResult
from tokensearch.report.text import plain, short
from tokensearch.stats.interval import Interval

BASELINE = "baseline"
RECALL = "recall@1"
# What is right of embeddings, as records and objectives have it.
RIGHT_BY = {"recall": RECALL, "knn": "k-NN accuracy", "probe": "probe accuracy"}
EMBEDDING_MEASURES: Mapping[Objective, str] = {
    "cosine": RECALL,
    "knn": RIGHT_BY["knn"],
    "probe": RIGHT_BY["probe"],
}
# What a search came upon by itself, by origin: its own proposals, and schedules drawn at random.
SEARCHED = {"sampler": "found", "seed": "found", "fastest": "found", "random": "random"}


@dataclass(frozen=True, slots=True)
class EvidenceFigures:
    """A policy as its evidence has it."""

    policy: Policy
    median_ms: float
    baseline_ms: float
    accuracy: Interval
    ratio: Interval | None  # None where it was not timed in turn with the baseline
    difference: Interval | None  # of the accuracy, from the baseline's on the same images
    confirmed: bool


def measure(*, labelled: bool) -> str:
    """Name what the share of right answers means, with labels and without.

    >>> measure(labelled=False)
    'agreement with the baseline'
    """
    return "accuracy" if labelled else "agreement with the baseline"


def measure_of(run: RunDocument) -> str:
    """What right answers are a measure of in this run."""
    objective = run.settings.objective
    return EMBEDDING_MEASURES.get(objective) or measure(labelled=run.data.labelled)


def measure_in(accuracy: Mapping[str, Any]) -> str:
    """What the right answers of an accuracy, as files hold it, are a measure of."""
    if "cosine" in accuracy:
        return RIGHT_BY.get(str(accuracy.get("right_by")), RECALL)
    return measure(labelled=accuracy.get("kind", "top1") == "top1")


def share_in(accuracy: Mapping[str, Any]) -> Interval:
    """Read the share of right answers, or of right embeddings, of an accuracy in a file."""
    return interval(accuracy, "share" if "cosine" in accuracy else "top1")


def judges_embeddings(run: RunDocument) -> bool:
    """Whether the run is of embeddings, and not of predictions."""
    return run.settings.objective in EMBEDDING_OBJECTIVES


def alike_as(run: RunDocument) -> str:
    """In what policies are alike that the rule of the answer cannot tell apart."""
    by_label = run.data.labelled and run.settings.objective != "cosine"
    return "as accurate" if by_label else "as close to the baseline"


def target_ratio_beside(run: RunDocument, comparison: Comparison) -> float:
    """The target as a share of the baseline's latency, as timed beside a candidate.

    1 where only a loss was bounded: what is no slower than the baseline is fast enough.
    """
    if run.settings.target is None:
        return 1.0
    baseline_ms = comparison.baseline.median_ms
    return run.settings.target.ratio(batch=run.cell.batch, baseline_ms=baseline_ms)


def name_of(policy: Policy, origin: str) -> str:
    """Name a policy: published ones have a name, others get one from their hash."""
    if not policy.reduces:
        return BASELINE
    kind = SEARCHED.get(origin)
    return plain(origin) if kind is None else f"{kind} {short(policy.schedule_hash)}"


def name_finalist(finalist: Finalist) -> str:
    """The preset's name, or one made of the schedule's hash."""
    return name_of(finalist.policy, finalist.origin)


def origin_of(policy: Policy, result: RunResult) -> str:
    """Where a member of the front came from."""
    finalist = result.finalist(policy.schedule_hash)
    return "sampler" if finalist is None else finalist.origin


def is_answer(policy: Policy, result: RunResult) -> bool:
    """Whether the policy is the one that the run hands back."""
    return result.answer is not None and policy.schedule_hash == result.answer.schedule_hash


def find_best_preset(result: RunResult) -> Finalist | None:
    """The best published finalist that meets the target; a control is none."""
    if result.best_preset is None:
        return None
    preset = result.finalist(result.best_preset.schedule_hash)
    return None if preset is None or is_control(preset.origin) else preset


def run_cautions(run: RunDocument) -> tuple[str, ...]:
    """What is doubtful about the timings, and before it that there was no use in them."""
    launching = run.launching
    bound = (launching.sentence,) if launching is not None and launching.bound else ()
    return (*bound, *map(plain, run.finished.cautions))


def read_evidence(policy: Policy, evidence: Evidence) -> EvidenceFigures:
    """Read one piece of a policy's evidence; PolicyError when a field is amiss."""
    with reading(PolicyError, "evidence"):
        comparison, paired = evidence.extra.get("comparison"), evidence.extra.get("paired")
        return EvidenceFigures(
            policy=policy,
            median_ms=evidence.median_ms,
            baseline_ms=float(evidence.baseline["median_ms"]),
            accuracy=share_in(evidence.accuracy),
            ratio=None if comparison is None else interval(comparison, "ratio"),
            difference=None if paired is None else interval(paired, "difference"),
            confirmed=evidence.confirmed,
        )


def interval(record: Mapping[str, Any], name: str) -> Interval:
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
