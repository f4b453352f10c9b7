"""Thresholds that meet a budget in the mean, and their static twin.

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
from tokensearch.policy import ModelSpec, Policy, Prune, Score, Threshold
from tokensearch.runtime import applied, choosing_thresholds, count_tokens, describe
from tokensearch.tune.budget import Budget, share_of_macs

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
    cost: float  # of the mean image, as the budget counts it
    mac_share: float  # mean over images, of the baseline's
    padded_mac_share: float  # the same, of batches that are filled up to their largest image


@torch.inference_mode()
def calibrate_thresholds(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    sites: Sequence[int],
    budget: Budget,
    score: Score = "head_weighted_class_attention",
    tell: Tell = lambda _: None,
) -> CalibratedThresholds:
    """Return thresholds at the ends of `sites`, under which the mean image costs the budget.

    batches  each (B, 3, rows, columns)

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
    budget: Budget,
    *,
    tell: Tell = lambda _: None,
) -> CalibratedThresholds:
    """Multiply all thresholds by one factor, so that the mean image costs the budget.

    The nearest of all that was measured is taken; PolicyError where that is beyond `TOLERANCE`.
    """
    nearest: CalibratedThresholds | None = None
    low, high, moved = -inf, inf, 0.0
    for _ in range(MOVES):
        measured = _measure(model, batches, _scaled(policy, exp(moved)), budget)
        tell(f"the mean image takes {budget.say(measured.cost)}")
        if nearest is None or _miss(measured, budget) < _miss(nearest, budget):
            nearest = measured
        if _miss(measured, budget) <= TOLERANCE / 2:
            break
        low, high = (moved, high) if measured.cost > budget.limit else (low, moved)
        moved = _between(low, high)
        if abs(moved) > FURTHEST:
            break
    assert nearest is not None
    if _miss(nearest, budget) > TOLERANCE:
        raise PolicyError(
            f"thresholds take {budget.say(nearest.cost)} and not {budget.limit:g}, since scores "
            f"are too much alike; take another score or more images"
        )
    return nearest


def _miss(measured: CalibratedThresholds, budget: Budget) -> float:
    """By what share of the budget the mean image misses it."""
    return abs(measured.cost / budget.limit - 1)


def _between(low: float, high: float) -> float:
    """Halve an interval; of one that is open on a side, go further there than before."""
    if high == inf:
        return max(2 * low, FIRST_MOVE)
    if low == -inf:
        return min(2 * high, -FIRST_MOVE)
    return (low + high) / 2


def _scaled(policy: Policy, factor: float) -> Policy:
    steps = (replace(step, threshold=step.threshold * factor) for step in thresholds_of(policy))
    return replace(policy, steps=tuple(steps))


def thresholds_of(policy: Policy) -> tuple[Threshold, ...]:
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


def check_reach(spec: ModelSpec, sites: Sequence[int], budget: Budget) -> None:
    """Refuse sites that a model does not have, and budgets that they cannot meet."""
    _policy(spec, "random", dict.fromkeys(sites, 0.0))
    first = min(sites)
    counts = [spec.patch_tokens if block < first else 1 for block in range(spec.blocks)]
    least = budget.cost(torch.tensor([counts])).item()
    if not least <= budget.limit < budget.whole:
        where = ", ".join(map(str, sorted(set(sites))))
        raise PolicyError(
            f"a budget of {budget.say(budget.limit)} is out of reach: with one patch token left, "
            f"blocks {where} leave {budget.say(least)}, and the baseline takes {budget.whole:.3g}; "
            f"choose between them, or earlier blocks"
        )


def _policy(spec: ModelSpec, score: Score, thresholds: Mapping[int, float]) -> Policy:
    steps = (
        Threshold(block, spec.patch_tokens, threshold, score)
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
    model: nn.Module, images: Tensor, policy: Policy, budget: Budget
) -> dict[int, float]:
    """Return the thresholds at which every site keeps the same share, and the mean the budget."""
    low, high = 0.0, 1.0
    for _ in range(SHARES):
        choose = _Quantiles((low + high) / 2)
        with applied(model, policy), choosing_thresholds(model, choose):
            cost = budget.cost(count_tokens(model, images)).item()
        low, high = (low, choose.share) if cost > budget.limit else (choose.share, high)
    return choose.thresholds


def _measure(
    model: nn.Module, batches: Sequence[Tensor], policy: Policy, budget: Budget
) -> CalibratedThresholds:
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
        budget.cost(counts).item(),
        share_of_macs(policy.model, counts).mean().item(),
        share_of_macs(policy.model, padded).mean().item(),
    )


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
            for step in thresholds_of(policy)
        ),
        counts="static",
        evidence=(),
        provenance={"frozen from": policy.schedule_hash, **policy.provenance},
    )
