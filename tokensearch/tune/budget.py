"""What thresholds may cost the mean image: a share of multiply-accumulates, or milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from tokensearch.costs import CostTable
from tokensearch.policy import ModelSpec, Policy, Prune, Score, block_macs, count_macs
from tokensearch.policy.steps import At

REACH = 4  # tokens on either side, whose predicted times say what one more token costs


class Budget(Protocol):
    """A limit of what the mean image costs."""

    @property
    def limit(self) -> float:
        """What may be spent."""
        ...

    @property
    def whole(self) -> float:
        """What the baseline costs."""
        ...

    def cost(self, counts: Tensor) -> Tensor:
        """Return the mean cost of images, a number with derivatives by the counts.

        counts  (images, blocks) patch tokens that each block hands on
        """
        ...

    def say(self, cost: float) -> str:
        """Return a cost in words."""
        ...


@dataclass(frozen=True)
class MacBudget:
    """A share of the baseline's multiply-accumulates in the blocks."""

    model: ModelSpec
    limit: float
    whole: float = 1.0
    at: At = "block_end"  # where tokens go

    def cost(self, counts: Tensor) -> Tensor:
        """Return the mean share."""
        return share_of_macs(self.model, counts, self.at).mean()

    def say(self, cost: float) -> str:
        """Return a share in words."""
        return f"{cost:.3f}x of the multiply-accumulates"


@dataclass(frozen=True)
class LatencyBudget:
    """Milliseconds that a cost table predicts of the static twin, which keeps the mean counts.

    Thresholds themselves take what their largest image takes, which no table says.
    """

    table: CostTable
    twin: Policy  # static, with a step at every site, in order
    limit: float

    @property
    def whole(self) -> float:
        """Milliseconds that are predicted of the baseline."""
        return self.table.predict(Policy(self.twin.model))

    def cost(self, counts: Tensor) -> Tensor:
        """Return predicted milliseconds; tables know whole tokens, and between them is a line."""
        sites = [step.block for step in self.twin.steps]
        means = counts[:, sites].double().mean(dim=0)
        kept = [round(mean) for mean in means.tolist()]
        slopes = means.new_tensor([self._slope(kept, site) for site in range(len(kept))])
        beyond = means - torch.tensor(kept, dtype=means.dtype, device=means.device)
        return self._predict(kept) + (slopes * beyond).sum()

    def say(self, cost: float) -> str:
        """Return milliseconds in words."""
        return f"{cost:.3g} ms as predicted of equal counts"

    def _slope(self, kept: list[int], site: int) -> float:
        """Milliseconds that one more token at a site takes."""
        fewer, more = max(1, kept[site] - REACH), kept[site] + REACH
        more = min(more, self.twin.model.patch_tokens)
        ends = (self._predict([*kept[:site], it, *kept[site + 1 :]]) for it in (fewer, more))
        below_ms, above_ms = ends
        return (above_ms - below_ms) / (more - fewer)

    def _predict(self, kept: list[int]) -> float:
        """Milliseconds of the twin with other counts, none of which rises from site to site."""
        left, steps = self.twin.model.patch_tokens, []
        for step, keep in zip(self.twin.steps, kept, strict=True):
            left = min(left, max(1, keep))
            steps.append(replace(step, keep=left))
        return self.table.predict(replace(self.twin, steps=tuple(steps)))


def make_twin(spec: ModelSpec, sites: Sequence[int], score: Score, at: At = "block_end") -> Policy:
    """Return a static policy with a prune at every site, for a cost table to price."""
    keeps = range(spec.patch_tokens - 1, 0, -1)
    steps = (Prune(block, keep, score, at=at) for block, keep in zip(sites, keeps, strict=False))
    return Policy(spec, tuple(steps))


def share_of_macs(spec: ModelSpec, counts: Tensor, at: At = "block_end") -> Tensor:
    """Multiply-accumulates of each image, as a share of the baseline's: (images,).

    counts  (images, blocks) patch tokens that each block hands on
    at      where tokens go
    """
    entering = torch.cat([torch.full_like(counts[:, :1], spec.patch_tokens), counts[:, :-1]], dim=1)
    tokens = (entering + spec.prefix_tokens).double()
    left = tokens if at == "block_end" else (counts + spec.prefix_tokens).double()
    macs: Tensor = count_macs(tokens, tokens, left, spec.width).sum(dim=1)
    return macs / sum(block_macs(Policy(spec)))
