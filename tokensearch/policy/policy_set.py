"""Several policies of one model, fastest first: what a search hands back."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokensearch.errors import NoPolicyError, PolicyError, TokensearchWarning
from tokensearch.notebook import html_table
from tokensearch.policy.answer import Goal, PolicyFigures, RightImages, choose
from tokensearch.policy.objective import objective_value
from tokensearch.policy.policy import Evidence, Json, Policy
from tokensearch.policy.target import Target, parse_target
from tokensearch.stats.interval import Interval

BY_MEDIANS = (
    "write the front again with tokensearch run or retarget to have intervals decide: this one, of "
    "an earlier release, has none, and its medians decide alone"
)

MEASURES = ("top1", "share")  # keys of what was right, in evidence


@dataclass(frozen=True, slots=True, repr=False)
class PolicySet:
    """Policies with evidence from one cell, fastest first; the baseline is one of them.

    >>> PolicySet(())
    <PolicySet without policies>
    """

    policies: tuple[Policy, ...]
    extra: Json = field(default_factory=dict, hash=False)  # unknown fields, kept

    def __post_init__(self) -> None:
        for index, policy in enumerate(self.policies):
            if not policy.evidence:
                raise PolicyError(
                    f"policy {index} of the set has no evidence; every member needs some"
                )

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def _repr_html_(self) -> str:
        """Return a row per policy, for notebooks."""
        columns = ("policy", "patch tokens left", "ms", "of baseline", "accuracy")
        return html_table(self._title, columns, map(_html_row, self.policies))

    @property
    def _title(self) -> str:
        if not self.policies:
            return "PolicySet without policies"
        fastest, slowest = (
            f"{self.policies[index].evidence[0].median_ms:.3g} ms" for index in (0, -1)
        )
        name = f"{self.policies[0].model.name:.60}"
        return f"PolicySet of {name}: {len(self.policies)} policies, {fastest} to {slowest}"

    def best(
        self,
        latency: str | Target | None = None,
        *,
        max_drop: float | None = None,
        max_divergence: float | None = None,
        doubtful: bool = False,
    ) -> Policy:
        """Return what `tokensearch run` and `retarget` would surely answer from these policies.

        The rule is `policy.answer.choose`: the fastest of all that are as accurate as the best
        under the latency; with a bound on the loss, the fastest within it. Intervals decide.

        latency         "5ms", "800us", "0.6x" of the baseline, or "2000/s"
        max_drop        points of top-1 that may be lost
        max_divergence  nats from the baseline's predictions
        doubtful        return what likely meets all this where it is better than what surely does,
                        or nothing surely does

        Where only the baseline surely keeps a bound on the loss, it is returned, and a
        TokensearchWarning names what is faster and may keep it.

        Files of earlier releases lack the intervals. Of these the most accurate policy is
        returned whose median is under the latency, and the faster of equally accurate ones; a
        TokensearchWarning says so.

        Raises:
            NoPolicyError: No policy is known to meet it.
            PolicyError: A loss is bounded, and the file does not say how sure the losses are.
        """
        target = None if latency is None else _read_target(latency)
        drop = None if max_drop is None else max_drop / 100
        goal = Goal(target, drop, max_divergence)
        candidates = [_read_figures(policy) for policy in self.policies]
        known = [candidate for candidate in candidates if candidate is not None]
        if len(known) < len(candidates):
            return self._best_by_medians(goal)
        choice = choose(known, goal)
        if choice.index is None:
            raise NoPolicyError(f"no policy of the set meets {goal}; {self._nearest(target)}")
        if doubtful and choice.promising:
            return self.policies[choice.promising[0]]
        if choice.outcome == "ambiguous" and not doubtful:
            if choice.fallback is not None:
                warnings.warn(
                    f"only the baseline meets {goal} for certain; one policy may, of "
                    f"{_describe_doubt(known[choice.index])}; ask for it with doubtful=True, or "
                    f"measure again, or on more images",
                    TokensearchWarning,
                    stacklevel=2,
                )
                return self.policies[choice.fallback]
            raise NoPolicyError(
                f"no policy of the set meets {goal} for certain, though one may, of "
                f"{_describe_doubt(known[choice.index])}; ask for it with doubtful=True, or "
                f"measure again"
            )
        return self.policies[choice.index]

    def _best_by_medians(self, goal: Goal) -> Policy:
        """Answer from a file of an earlier release."""
        target = goal.target
        if goal.bounded or target is None:
            raise PolicyError(
                "the set does not say how sure losses are, as files of earlier releases do not; "
                "search again, or ask for a latency alone"
            )
        under = [policy for policy in self.policies if _meets(policy.evidence[0], target)]
        if not under:
            raise NoPolicyError(f"no policy of the set meets {target}; {self._nearest(target)}")
        warnings.warn(BY_MEDIANS, TokensearchWarning, stacklevel=3)
        return max(
            under,
            key=lambda policy: (worth_of(policy.evidence[0]), -policy.evidence[0].median_ms),
        )

    def _nearest(self, target: Target | None) -> str:
        """Say what could be asked for."""
        if not self.policies:
            return "the set is empty"
        evidence = [policy.evidence[0] for policy in self.policies]
        nearest = min(evidence, key=lambda item: item.median_ms / _limit_ms(item, target))
        share = nearest.median_ms / float(nearest.baseline["median_ms"])
        return f"the fastest takes {nearest.median_ms:.3g} ms, {share:.3f}x of the baseline"


def _describe_doubt(figures: PolicyFigures) -> str:
    """Say what a policy takes, and whether its timing or its interval is the doubt."""
    ratio = figures.ratio
    took = f"{ratio.value:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"
    if figures.sure:
        return f"{took}: not all intervals lie within what is asked"
    return f"{took}: it was timed under doubt, beside other programs or by too few passes"


def worth_of(evidence: Evidence) -> float:
    """Worth on the split that choices are made on, by the objective of the run that measured it.

    A run writes down its `select` accuracy for that, so that the quoted one stays unbiased.
    """
    accuracy = evidence.extra.get("select", evidence.accuracy)
    usual = "cosine" if "cosine" in accuracy else "top1"
    return objective_value(accuracy, evidence.extra.get("objective", usual))


def _read_target(latency: str | Target) -> Target:
    return latency if isinstance(latency, Target) else parse_target(str(latency))


def _read_figures(policy: Policy) -> PolicyFigures | None:
    """Return what a policy is chosen by; None where a file of an earlier release lacks it."""
    evidence = policy.evidence[0]
    select, figures, timed = (evidence.extra.get(name, {}) for name in _CHOSEN_BY)
    divergence = _read_divergence(select, figures)
    if divergence is None or any(
        not needed <= part.keys()
        for part, needed in zip((select, figures, timed), _CHOSEN_BY.values(), strict=True)
    ):
        return None
    return PolicyFigures(
        reduces=policy.reduces,
        batch=int(evidence.cell["batch"]),
        ratio=Interval(timed["ratio"], timed["low"], timed["high"]),
        median_ms=Interval(evidence.median_ms, timed["low_ms"], timed["high_ms"]),
        value=worth_of(evidence),
        divergence=divergence,
        right=RightImages.from_hex(select["images"], figures["right"], figures.get("groups")),
        sure=evidence.confirmed,
    )


def _read_divergence(select: Mapping[str, Any], figures: Mapping[str, Any]) -> Interval | None:
    """Return the distance from the baseline's predictions, or from its embeddings."""
    if "kl" in select and {"kl_low", "kl_high"} <= figures.keys():
        return Interval(select["kl"], figures["kl_low"], figures["kl_high"])
    if "cosine" in select and {"cosine_low", "cosine_high"} <= figures.keys():
        low, high = figures["cosine_low"], figures["cosine_high"]
        return Interval(1.0 - select["cosine"], 1.0 - high, 1.0 - low)
    return None


# Fields of evidence that the rule of the answer goes by, besides the divergence.
_CHOSEN_BY = {
    "select": {"images"},
    "choice": {"right"},
    "comparison": {"ratio", "low", "high", "low_ms", "high_ms"},
}


def _meets(evidence: Evidence, target: Target) -> bool:
    return evidence.median_ms <= _limit_ms(evidence, target)


def _limit_ms(evidence: Evidence, target: Target | None) -> float:
    """The target in milliseconds; without one, the baseline's own time."""
    baseline_ms, batch = float(evidence.baseline["median_ms"]), int(evidence.cell["batch"])
    return baseline_ms if target is None else target.limit_ms(batch=batch, baseline_ms=baseline_ms)


def _html_row(policy: Policy) -> tuple[str, ...]:
    evidence = policy.evidence[0]
    ms, baseline_ms = evidence.median_ms, evidence.baseline.get("median_ms")
    right = next((evidence.accuracy[k] for k in MEASURES if k in evidence.accuracy), None)
    return (
        policy.schedule_hash.removeprefix("sha256:")[:8],
        " ".join(map(str, policy.patch_tokens_after_block)),
        f"{ms:.3g}",
        "-" if not baseline_ms else f"{ms / float(baseline_ms):.2f}x",
        "-" if right is None else f"{100 * float(right):.1f} %",
    )
