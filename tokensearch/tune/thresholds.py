"""Thresholds that meet a budget of multiply-accumulates in the mean, and their static twin.

Calibration takes no gradient. At every site the same share of the tokens that are there is kept,
over all images together, so that an image keeps more of them where it has more that score high. The
share is found by bisection. Then all thresholds are moved together until the budget is met on all
images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, inf, log

import torch
from torch import Tensor, nn

from tokensearch.errors import PolicyError
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.policy import (
    ModelSpec,
    Policy,
    Prune,
    Score,
    Threshold,
    block_macs,
    count_macs,
    mac_share,
)
from tokensearch.progress import ProgressListener, tell_images
from tokensearch.runtime import applied, choosing_thresholds, count_tokens, describe

# Of the budget, that the mean may miss it by. Bisection ends early within half of it.
TOLERANCE = 0.02
SHARES, MOVES = 10, 20  # halvings of the share; moves of the logarithm of thresholds
FIRST_MOVE = log(1.25)  # the first images are like the others; it doubles until that is enough
FURTHEST = log(1e6)  # beyond that scores are not numbers that a factor would help
FIRST_IMAGES = 64  # for the share: more than the tokens of any site need for a quantile

Tell = Callable[[str], None]


@dataclass(frozen=True)
class CalibratedThresholds:
    """A policy with thresholds, and what it keeps of the images that it was calibrated on."""

    policy: Policy
    counts: Tensor  # (images, blocks) patch tokens that each block hands on
    mac_share: float  # mean over images, of the baseline's
    padded_mac_share: float  # the same, of batches that are filled up to their largest image


@dataclass(frozen=True)
class ThresholdsResult:
    """Thresholds, and their accuracy on `select` beside that of their static twin."""

    calibrated: CalibratedThresholds
    select: Mapping[str, ScoredPolicy]  # "thresholds" and "static"


def find_thresholds(
    evaluator: PolicyEvaluator,
    *,
    sites: Sequence[int],
    budget: float,
    score: Score,
    watcher: ProgressListener,
) -> ThresholdsResult:
    """Calibrate thresholds on `search`, and compare them with their static twin on `select`."""
    watcher.stage(f"calibrating thresholds after blocks {', '.join(map(str, sites))}")
    calibrated = calibrate_thresholds(
        evaluator.model,
        evaluator.load_batches("search"),
        sites=sites,
        budget=budget,
        score=score,
        tell=watcher.note,
    )
    policies = {"thresholds": calibrated.policy, "static": freeze(calibrated.policy)}
    scored = {}
    for name, policy in policies.items():
        watcher.stage(f"accuracy on the select split: {name}", unit="images")
        scored[name] = evaluator.score(policy, "select", on_batch=tell_images(watcher))
    return ThresholdsResult(calibrated, scored)


@torch.inference_mode()
def calibrate_thresholds(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    sites: Sequence[int],
    budget: float,
    score: Score = "head_weighted_class_attention",
    tell: Tell = lambda _: None,
) -> CalibratedThresholds:
    """Return thresholds at the ends of `sites`, under which the mean image takes `budget`.

    batches  each (B, 3, rows, columns)
    budget   share of the baseline's multiply-accumulates in the blocks

    PolicyError where the budget is out of reach, said before the first pass.
    """
    spec = describe(model)
    check_reach(spec, sites, budget)
    start = _policy(spec, score, dict.fromkeys(sites, 0.0))
    thresholds = _at_equal_shares(model, _first_images(batches), start, budget)
    tell("thresholds are quantiles of the scores; now all are moved to meet the budget")
    return move_to_budget(model, batches, _policy(spec, score, thresholds), budget, tell=tell)


@torch.inference_mode()
def move_to_budget(
    model: nn.Module,
    batches: Sequence[Tensor],
    policy: Policy,
    budget: float,
    *,
    tell: Tell = lambda _: None,
) -> CalibratedThresholds:
    """Multiply all thresholds by one factor, so that the mean image takes `budget`.

    The nearest of all that was measured is taken; PolicyError where that is beyond `TOLERANCE`.
    """
    nearest: CalibratedThresholds | None = None
    low, high, moved = -inf, inf, 0.0
    for _ in range(MOVES):
        measured = _measure(model, batches, _scaled(policy, exp(moved)))
        tell(f"multiply-accumulates {measured.mac_share:.3f}x of the baseline")
        if nearest is None or _miss(measured, budget) < _miss(nearest, budget):
            nearest = measured
        if _miss(measured, budget) <= TOLERANCE / 2:
            break
        low, high = (moved, high) if measured.mac_share > budget else (low, moved)
        moved = _between(low, high)
        if abs(moved) > FURTHEST:
            break
    assert nearest is not None
    if _miss(nearest, budget) > TOLERANCE:
        raise PolicyError(
            f"thresholds take {nearest.mac_share:.3f}x of the multiply-accumulates and not "
            f"{budget:g}x, since scores are too much alike; take another score or more images"
        )
    return nearest


def _miss(measured: CalibratedThresholds, budget: float) -> float:
    """By what share of the budget the mean image misses it."""
    return abs(measured.mac_share / budget - 1)


def _between(low: float, high: float) -> float:
    """Halve an interval; of one that is open on a side, go further there than before."""
    if high == inf:
        return max(2 * low, FIRST_MOVE)
    if low == -inf:
        return min(2 * high, -FIRST_MOVE)
    return (low + high) / 2


def _scaled(policy: Policy, factor: float) -> Policy:
    steps = (replace(step, threshold=step.threshold * factor) for step in _thresholds_of(policy))
    return replace(policy, steps=tuple(steps))


def _thresholds_of(policy: Policy) -> tuple[Threshold, ...]:
    """Steps of a policy per image, which are all thresholds."""
    return tuple(step for step in policy.steps if isinstance(step, Threshold))


def _first_images(batches: Sequence[Tensor]) -> Tensor:
    """The first `FIRST_IMAGES`, or all where there are fewer."""
    taken = 0
    for number, images in enumerate(batches, start=1):
        taken += len(images)
        if taken >= FIRST_IMAGES:
            return torch.cat(list(batches[:number]))[:FIRST_IMAGES]
    return torch.cat(list(batches))


def check_reach(spec: ModelSpec, sites: Sequence[int], budget: float) -> None:
    """Refuse sites that a model does not have, and budgets that they cannot meet."""
    least = mac_share(_policy(spec, "random", dict.fromkeys(sites, 0.0), keep=1))
    if not least <= budget < 1:
        where = ", ".join(map(str, sorted(set(sites))))
        raise PolicyError(
            f"a budget of {budget:g}x of the multiply-accumulates is out of reach: with one patch "
            f"token left, blocks {where} leave {least:.3f}x; choose from there to 1x, or earlier "
            f"blocks"
        )


def _policy(
    spec: ModelSpec,
    score: Score,
    thresholds: Mapping[int, float],
    *,
    keep: int | None = None,
) -> Policy:
    steps = (
        Threshold(block, keep or spec.patch_tokens, threshold, score)
        for block, threshold in sorted(thresholds.items())
    )
    return Policy(spec, tuple(steps), counts="per_image")


@dataclass
class _Quantiles:
    """Chooses thresholds above which the same share of all scores lies at every site."""

    share: float
    thresholds: dict[int, float] = field(default_factory=dict)

    def __call__(self, step: Threshold, scores: Tensor) -> float:
        threshold = float(scores.float().quantile(1 - self.share)) if scores.numel() else 0.0
        self.thresholds[step.block] = threshold
        return threshold


def _at_equal_shares(
    model: nn.Module, images: Tensor, policy: Policy, budget: float
) -> dict[int, float]:
    """Return the thresholds at which every site keeps the same share, and the mean the budget."""
    low, high = 0.0, 1.0
    for _ in range(SHARES):
        choose = _Quantiles((low + high) / 2)
        with applied(model, policy), choosing_thresholds(model, choose):
            taken = _shares(policy.model, count_tokens(model, images)).mean().item()
        low, high = (low, choose.share) if taken > budget else (choose.share, high)
    return choose.thresholds


def _measure(model: nn.Module, batches: Sequence[Tensor], policy: Policy) -> CalibratedThresholds:
    """Count what a policy keeps of all images, and write the means into it."""
    with applied(model, policy):
        counted = [count_tokens(model, images) for images in batches]
    counts = torch.cat(counted)
    padded = torch.cat([each.amax(dim=0).expand_as(each) for each in counted])
    means = counts.double().mean(dim=0).tolist()
    kept = (replace(step, keep=max(1, round(means[step.block]))) for step in policy.steps)
    return CalibratedThresholds(
        replace(policy, steps=tuple(kept)),
        counts,
        _shares(policy.model, counts).mean().item(),
        _shares(policy.model, padded).mean().item(),
    )


def _shares(spec: ModelSpec, counts: Tensor) -> Tensor:
    """Multiply-accumulates of each image, as a share of the baseline's: (images,).

    counts  (images, blocks) patch tokens that each block hands on; none removes any within
    """
    entering = torch.cat([torch.full_like(counts[:, :1], spec.patch_tokens), counts[:, :-1]], dim=1)
    tokens = (entering + spec.prefix_tokens).double()
    macs: Tensor = count_macs(tokens, tokens, tokens, spec.width).sum(dim=1)
    return macs / sum(block_macs(Policy(spec)))


def freeze(policy: Policy) -> Policy:
    """Return the policy that keeps, of every image, as many tokens as thresholds keep in the mean.

    Its evidence is not that of the original, and is left out. PolicyError where counts are static.
    """
    if policy.counts != "per_image":
        raise PolicyError(
            "the policy keeps equal counts for all images already; only policies with thresholds "
            "can be made static"
        )
    return replace(
        policy,
        steps=tuple(
            Prune(step.block, step.keep, step.score, at=step.at, tensors=step.tensors)
            for step in _thresholds_of(policy)
        ),
        counts="static",
        evidence=(),
        provenance={"frozen from": policy.schedule_hash, **policy.provenance},
    )
