"""A machine whose costs are known: it takes the place of a model under a sweep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from random import Random

import numpy as np

from tests import cells
from tokensearch.costs.design import ON_REQUEST, OPERATORS, SWEPT_SCORES, Design
from tokensearch.costs.sweep import run_sweep
from tokensearch.costs.table import CostTable
from tokensearch.policy import ModelSpec, Policy, Pool, Step, changes_sizes
from tokensearch.records.profile import Scope

SPEC = ModelSpec("toy", blocks=6, patch_tokens=48, prefix_tokens=1, width=8)
CELL = replace(cells.CELL, resolution=96, threads=1)


def slope(tokens: int) -> float:
    """A machine on which every token costs the same."""
    return float(tokens)


def treads(tokens: int) -> float:
    """A machine that computes eight tokens at a time."""
    return 8.0 * ceil(tokens / 8)


@dataclass
class SyntheticMachine:
    """Costs in milliseconds by formulae of its own, disturbed as asked for."""

    shape: Callable[[int], float] = slope
    noise: float = 0.0  # log-normal, of every part
    speed: Callable[[float], float] = lambda _: 1.0  # slowness at a second since the start
    interrupted: float = 0.0  # share of parts that take four times as long
    first_mlp: float = 1.0  # how much more the first block's MLP takes
    plain: Callable[[float], float] = lambda ms: ms  # a plain pass, of the sum of its parts
    seed: int = 0
    passes: int = 0
    _now_s: float = 0.0
    _random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def whole_ms(self, policy: Policy) -> float:
        return self._run({(None, "other"): self.true_ms(policy)})[None, "other"]

    def split_ms(self, policy: Policy, *, floor: bool) -> Mapping[Scope, float]:
        return self._run(self.parts_ms(policy, floor=floor))

    def elapsed_s(self) -> float:
        return self._now_s

    def true_ms(self, policy: Policy) -> float:
        """A plain pass without noise."""
        return self.plain(sum(self.parts_ms(policy, floor=False).values()))

    def parts_ms(self, policy: Policy, *, floor: bool) -> dict[Scope, float]:
        """Every part of a pass without noise."""
        parts: dict[Scope, float] = {(None, "stem"): 30.0, (None, "other"): 0.5}
        left, sized = policy.model.patch_tokens, False
        for block, after in enumerate(policy.patch_tokens_per_block):
            tail = policy.last_block == "prefix_only" and block == policy.model.blocks - 1
            parts[block, "attention"] = 3 + 0.1 * left if tail else 2 + 0.8 * self.shape(left)
            parts[block, "bias"] = 0.02 * left if sized else 0.0
            parts[block, "mlp"] = (1.5 + 1.4 * self.shape(after)) * (
                self.first_mlp if block == 0 else 1.0
            )
            for step in () if floor else policy.steps_of(block):
                if step.score is not None:
                    parts[block, "scoring"] = 0.3 + 0.02 * left
                before = parts.get((block, "merging"), 0.0)
                parts[block, "merging"] = before + self._step_ms(step, left, step.keep)
                left = step.keep
                sized = sized or (policy.proportional_attention and changes_sizes(step))
            left = after
        parts[None, "head"] = 0.4 + 0.01 * left
        return parts

    @staticmethod
    def _step_ms(step: Step, n_in: int, n_out: int) -> float:
        pairs = {"bipartite": n_in * n_in, "ranked": n_out * (n_in - n_out)}
        match = step.match if isinstance(step, Pool) else None
        return 0.5 + 0.05 * n_in + 0.001 * pairs.get(match or "", n_in * n_out if match else 0)

    def _run(self, parts: dict[Scope, float]) -> dict[Scope, float]:
        self.passes += 1
        slow = self.speed(self._now_s)
        taken = {scope: ms * slow * self._disturbance() for scope, ms in parts.items()}
        self._now_s += sum(taken.values()) / 1000
        return taken

    def _disturbance(self) -> float:
        often = self._random.random() < self.interrupted
        return float(np.exp(self.noise * self._random.standard_normal())) * (4.0 if often else 1.0)


# The formulae above are of these operators' terms.
OF_ITS_TERMS = tuple(
    name for name in OPERATORS if name not in ON_REQUEST | {"pool kmedoids", "prune_or_pool"}
)


def design(seed: int = 0, operators: tuple[str, ...] = OF_ITS_TERMS) -> Design:
    return Design(SPEC, SWEPT_SCORES, operators, prefix_only=True, random=Random(seed))


def table_of(machine: SyntheticMachine, seconds: float = 150.0, seed: int = 0) -> CostTable:
    """Sweep a machine; its seconds pass as its passes say, not on the wall."""
    return run_sweep(machine, design(seed), cell=CELL, seconds=seconds, seed=seed)


def unseen(count: int = 30) -> list[Policy]:
    """Schedules that no sweep of these tests draws."""
    other = design(seed=4321)
    return [other.reducing() for _ in range(count)]
