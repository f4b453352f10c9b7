"""Synthetic search problems whose loss and latency are formulas, so that the truth is known."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, log10

import numpy as np

from tokensearch.front import Point, hypervolume
from tokensearch.policy import ModelSpec, Policy, Pool, Prune, Step, block_macs
from tokensearch.search import SearchSpace, load_space
from tokensearch.search.sampler.mutations import ParameterMutator, Parameters

DEIT = ModelSpec("deit", blocks=12, patch_tokens=196, prefix_tokens=1, width=384)
LARGE = ModelSpec("vit-large", blocks=24, patch_tokens=196, prefix_tokens=1, width=1024)
LEAST = 1e-3  # nats: below it losses are all the same
WORST = Point(accuracy=0.0, latency=1.0)  # one nat, as slow as the baseline
PER_STEP = 0.012  # of the baseline's latency, for choosing and moving tokens

# Of the search for the best front: 60 generations of 300, from the survivors of the one before.
GENERATIONS, CHILDREN = 60, 300


@dataclass(frozen=True)
class Landscape:
    """One problem: what a schedule truly loses and takes."""

    name: str
    model: ModelSpec
    loss: Callable[[Policy], float]  # nats
    latency: Callable[[Policy], float]  # share of the baseline's
    timing_noise: float = 0.0  # relative standard deviation of one timing

    @property
    def space(self) -> SearchSpace:
        """All landscapes are searched by the default space."""
        return load_space("default")

    def point(self, policy: Policy) -> Point:
        """Return what a schedule is truly worth: digits of its loss, and its latency."""
        return Point(-log10(self.loss(policy) + LEAST), self.latency(policy))

    def timed(self, policy: Policy, seed: int) -> float:
        """Return one timing, the same whenever the same schedule is timed from this seed."""
        return self.latency(policy) * exp(self.timing_noise * draw_normal(policy, f"time{seed}"))

    def predicted(self, policy: Policy, error: float) -> float:
        """Return a forecast of the latency that is off by `error`, alike for like schedules."""
        if not policy.reduces:
            return 1.0
        return self.latency(policy) * exp(error * draw_normal(policy, "forecast"))


def draw_normal(policy: Policy, purpose: str) -> float:
    """Return a standard normal number that belongs to a schedule."""
    name = f"{purpose} {policy.schedule_hash}".encode()
    seed = int.from_bytes(hashlib.sha256(name).digest()[:8], "big")
    return float(np.random.default_rng(seed).standard_normal())


def share_of_work(policy: Policy) -> float:
    """Return the latency by multiply-accumulates, with a price for every step."""
    whole = sum(block_macs(Policy(policy.model)))
    return sum(block_macs(policy)) / whole + PER_STEP * len(policy.steps)


def staircase(policy: Policy) -> float:
    """Return a latency that only falls where a multiple of 32 tokens is passed."""
    model = policy.model
    tiles = [ceil((1 + tokens) / 32) for tokens in policy.patch_tokens_per_block]
    whole = model.blocks * ceil((1 + model.patch_tokens) / 32)
    return sum(tiles) / whole + PER_STEP * len(policy.steps)


def removals(policy: Policy) -> list[tuple[Step, float, float]]:
    """Return every step with the share of all tokens that reaches it and that it removes."""
    found, left = [], policy.model.patch_tokens
    for step in policy.steps:
        whole = policy.model.patch_tokens
        found.append((step, left / whole, (left - step.keep) / whole))
        left = step.keep
    return found


def early_cuts_hurt(policy: Policy) -> float:
    """Pooling loses half of what pruning does, and either less the later it is."""
    loss, depth = 1e-4, policy.model.blocks
    for step, reached, removed in removals(policy):
        left = (reached - removed) * policy.model.patch_tokens
        harm = (removed / reached) ** 2 * (depth - step.block) / depth
        loss += harm * (0.5 if isinstance(step, Pool) else 1.0) * 20 / (left + 4)
    return loss


def interacting_blocks(policy: Policy) -> float:
    """Steps that follow each other closely hurt one another; pruning what was pooled hurts most."""
    loss, before = 2e-4, None
    for step, reached, removed in removals(policy):
        share = removed / reached
        loss += 0.03 * share**3 * exp(-step.block / 5) / max(0.02, reached - removed)
        if before is not None:
            clash = 4.0 if isinstance(before, Pool) and isinstance(step, Prune) else 1.0
            loss += 0.08 * clash * share * exp(-(step.block - before.block - 1) / 1.5)
        before = step
    return loss


def operator_matters(policy: Policy) -> float:
    """Early tokens are alike and want pooling by rank; late ones are unlike and want pruning."""
    loss = 1e-4 * (1.0 if policy.proportional_attention else 3.0)
    for step, reached, removed in removals(policy):
        depth = step.block / policy.model.blocks
        if isinstance(step, Pool):
            factor = (0.2 + 3.0 * depth) * (1.0 if step.match == "ranked" else 2.5)
        else:
            rest = {"drop": 1.0, "fuse": 0.6, "mean": 1.6}[step.rest]  # type: ignore[union-attr]
            factor = (3.0 - 2.5 * depth) * rest
            factor *= 0.5 if step.score == "class_attention_value" else 1.0  # type: ignore[union-attr]
        loss += 0.1 * factor * removed**1.5 / (reached - removed + 0.03)
    return loss


# How much a step hurts in each of 24 blocks: some are near free and some forbidden, in no order.
SENSITIVITY = np.random.default_rng(24).lognormal(0, 1, 24)


def uneven_blocks(policy: Policy) -> float:
    """Early cuts hurt, and every block has a sensitivity of its own, which has to be found."""
    loss, depth = 1e-4, policy.model.blocks
    for step, reached, removed in removals(policy):
        harm = SENSITIVITY[step.block] * (removed / reached) ** 2 * (1.2 - step.block / depth)
        loss += 0.03 * float(harm) / (reached - removed + 0.05)
    return loss


LANDSCAPES = (
    Landscape("early cuts hurt", DEIT, early_cuts_hurt, share_of_work),
    Landscape("interacting blocks", DEIT, interacting_blocks, share_of_work),
    Landscape("operator matters", DEIT, operator_matters, share_of_work),
    Landscape("24 blocks", LARGE, uneven_blocks, share_of_work),
    Landscape("noisy staircase", DEIT, early_cuts_hurt, staircase, timing_noise=0.02),
)


def volume_of(points: list[Point]) -> float:
    """Return the hypervolume in digits of loss times share of latency."""
    return hypervolume(points, reference=WORST)


@lru_cache(maxsize=len(LANDSCAPES))
def best_volume(landscape: Landscape) -> float:
    """Return the hypervolume of the best front known: by evolution on the truth, for long."""
    space, model = landscape.space, landscape.model
    mutator = ParameterMutator(space.dimensions(model), np.random.default_rng(0))
    front: list[tuple[Point, Parameters]] = []
    for _ in range(GENERATIONS):
        parents = [parameters for _, parameters in front]
        children = [mutator.mutate(parents) for _ in range(CHILDREN)]
        tried = [(landscape.point(space.build(one, model)), one) for one in children]
        front = _best_of([*front, *tried])
    return volume_of([point for point, _ in front])


def _best_of(tried: list[tuple[Point, Parameters]]) -> list[tuple[Point, Parameters]]:
    """Return the Pareto front, fastest first."""
    front: list[tuple[Point, Parameters]] = []
    for point, parameters in sorted(tried, key=lambda one: (one[0].latency, -one[0].accuracy)):
        if not front or point.accuracy > front[-1][0].accuracy:
            front.append((point, parameters))
    return front
