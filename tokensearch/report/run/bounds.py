"""Which of the bounds that were asked for a policy does not keep for certain, in words."""

from tokensearch.policy import RightImages
from tokensearch.records.comparability import contradicts
from tokensearch.records.measurements import Caution
from tokensearch.records.run_result import Finalist, RunDocument
from tokensearch.report import text
from tokensearch.report.run.result import judges_embeddings, target_ratio_beside
from tokensearch.stats.interval import Interval


def describe_unkept_losses(run: RunDocument, finalist: Finalist) -> tuple[str, ...]:
    """Return each loss, on `select`, that is not within its bound for certain.

    The baseline has none.
    """
    if not finalist.policy.reduces:
        return ()
    settings, said = run.settings, list[str]()
    drop, divergence = measure_drop(run, finalist), _divergence(finalist)
    if settings.max_drop is not None and (drop is None or drop.high > settings.max_drop):
        lost = "points lost unknown" if drop is None else f"{text.points_interval(drop)} lost"
        said.append(f"{lost} where {text.points(settings.max_drop)} may be")
    most = settings.max_divergence
    if most is not None and (divergence is None or divergence.high > most):
        name = "1 - cosine" if judges_embeddings(run) else "divergence"
        value = "unknown" if divergence is None else _figures(divergence)
        said.append(f"{name} {value} where {text.three_digits(most)} may be")
    return tuple(said)


def keeps_latency(run: RunDocument, finalist: Finalist) -> bool:
    """Whether its timing settles that it is fast enough."""
    comparison = finalist.comparison
    contradicted = finalist.earlier is not None and contradicts(finalist.earlier, comparison)
    doubted = Caution.BUSY in comparison.cautions or contradicted
    return not doubted and comparison.high <= target_ratio_beside(run, comparison)


def may_keep_latency(run: RunDocument, finalist: Finalist) -> bool:
    """Whether it may be fast enough."""
    return finalist.comparison.low <= target_ratio_beside(run, finalist.comparison)


def measure_drop(run: RunDocument, finalist: Finalist) -> Interval | None:
    """Return the share of right answers lost on `select`; None where a file does not say."""
    baseline = next((f for f in run.finished.finalists if not f.policy.reduces), None)
    if baseline is None or baseline.choice is None or finalist.choice is None:
        return None
    before, after = (
        RightImages.from_hex(f.select.images, f.choice.right, f.choice.groups)
        for f in (baseline, finalist)
        if f.choice is not None
    )
    return -after.change_from(before)


def _divergence(finalist: Finalist) -> Interval | None:
    if finalist.choice is None:
        return None
    return Interval(finalist.select.divergence, *finalist.choice.divergence)


def _figures(interval: Interval) -> str:
    value, low, high = map(text.three_digits, (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]"
