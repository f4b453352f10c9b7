"""Thresholds that meet a budget of multiply-accumulates in the mean, and their static twin.

Calibration takes no gradient. At every site the same share of the tokens that are there is kept,
over all images together, so that an image keeps more of them where it has more that score high. The
share is found by bisection. Then all thresholds are moved together until the budget is met on all
images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log

import torch
from torch import Tensor, nn

from tokensearch.errors import PolicyError
from tokensearch.policy import ModelSpec, Policy, Prune, Score, Step, Threshold, mac_share
from tokensearch.runtime import applied, choosing_thresholds, count_tokens, describe

# Of the budget, that the mean may miss it by. Bisection ends early within half of it.
TOLERANCE = 0.02
SHARES, MOVES = 10, 10  # halvings of the share, and of the logarithm by which thresholds move
FURTHEST = log(8)  # that thresholds move: the first images are like the others
FIRST_IMAGES = 64  # for the share: more than the tokens of any site need for a quantile

Tell = Callable[[str], None]


@dataclass(frozen=True)
class CalibratedThresholds:
    """A policy with thresholds, and what it keeps of the images that it was calibrated on."""

    policy: Policy
    counts: Tensor  # (images, blocks) patch tokens that each block hands on
    mac_share: float  # mean over images, of the baseline's
    padded_mac_share: float  # the same, of batches that are filled up to their largest image


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
    first = torch.cat(list(batches))[:FIRST_IMAGES]
    start = _policy(spec, score, dict.fromkeys(sites, 0.0))
    thresholds = _at_equal_shares(model, first, start, budget)
    tell("thresholds are quantiles of the scores; now all are moved to meet the budget")
    low, high, moved = -FURTHEST, FURTHEST, 0.0
    for _ in range(MOVES):
        policy = _policy(spec, score, {b: value * exp(moved) for b, value in thresholds.items()})
        measured = _measure(model, batches, policy)
        tell(f"multiply-accumulates {measured.mac_share:.3f}x of the baseline")
        if abs(measured.mac_share / budget - 1) <= TOLERANCE / 2:
            break
        low, high = (moved, high) if measured.mac_share > budget else (low, moved)
        moved = (low + high) / 2
    if abs(measured.mac_share / budget - 1) > TOLERANCE:
        raise PolicyError(
            f"thresholds take {measured.mac_share:.3f}x of the multiply-accumulates and not "
            f"{budget:g}x, since scores are too much alike; take another score or more images"
        )
    return measured


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
    tokens, width = (entering + spec.prefix_tokens).double(), spec.width
    macs = 12 * tokens * width**2 + 2 * tokens**2 * width
    whole = spec.blocks * (12 * spec.tokens * width**2 + 2 * spec.tokens**2 * width)
    return macs.sum(dim=1) / whole


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
        steps=tuple(map(_freeze_step, policy.steps)),
        counts="static",
        evidence=(),
        provenance={"frozen from": policy.schedule_hash, **policy.provenance},
    )


def _freeze_step(step: Step) -> Step:
    if isinstance(step, Threshold):
        return Prune(step.block, step.keep, step.score, at=step.at)
    return step
