"""Which schedules a sweep runs: counts are dealt like cards, so that all are met equally often."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isqrt
from random import Random
from typing import cast, get_args

from tokensearch.policy import (
    ModelSpec,
    Policy,
    Pool,
    Prune,
    PruneOrPool,
    Score,
    Step,
    mac_share,
)
from tokensearch.policy.checks import kept_range
from tokensearch.policy.policy import LastBlock
from tokensearch.policy.rescale import match_latency
from tokensearch.policy.steps import LEARNED, MATCHES, RESTS, Match, Rest

# Operators that a search draws on; the others are met as often as it takes to price them.
USUAL = ("prune drop", "pool bipartite", "pool ranked")
USUAL_SHARE = 0.7  # of sites
GRID = "pool grid"
GRID_SHARE = 0.05  # of schedules, which begin with it: nowhere else is the grid still whole
# Of schedules as lie on fronts: sites at most, as many as the default space has; which part of the
# blocks the first of them is in; and what each leaves before all are bent to a share of the work.
FRONT_SITES, EARLY, CUT = 4, 3, (0.4, 0.85)
MILD, DEEP = 0.9, 0.2  # shares of the work, over which fronts are spread
# Not in a sweep unless asked for. A site of the first takes longer than the rest of the pass; the
# others are in no default search, and the more kinds there are, the less often each is met.
ON_REQUEST = frozenset(
    {
        "pool agglomerative",
        "pool sized_bipartite",
        "pool energy",
        "pool energy_bipartite",
        "score shift",
    }
)
SWEPT_SCORES: tuple[Score, ...] = tuple(
    score for score in get_args(Score) if f"score {score}" not in ON_REQUEST and score != LEARNED
)
OPERATORS = (
    *(f"prune {rest}" for rest in RESTS),
    *(f"pool {match}" for match in MATCHES),
    "prune_or_pool",
)
THRESHOLD = 0.0  # of prune_or_pool: both ways are computed, so that its price does not depend on it


@dataclass
class Design:
    """Draws schedules for one model. The same seed draws the same."""

    model: ModelSpec
    scores: Sequence[Score]
    operators: Sequence[str]
    prefix_only: bool  # whether the last block may compute prefix tokens alone
    random: Random
    _deck: list[int] = field(default_factory=list)

    def floor(self) -> Policy:
        """Counts alone: to be run with tokens cut off, so that only halves of blocks cost."""
        hand = self._hand(self.model.blocks)
        steps = tuple(Prune(block, keep, "mean_attention") for block, keep in hand)
        return Policy(self.model, steps, last_block=self._last_block())

    def reducing(self) -> Policy:
        """A real schedule: one operator at each of some blocks."""
        steps: list[Step] = []
        left = self.model.patch_tokens
        for block, keep in self._hand(self.model.blocks):
            name = GRID if not steps and self._on_grid(left) else self._name()
            step = self._fitting(self._built(name, block, keep), left)
            if step.keep < left:
                steps.append(step)
                left = step.keep
        return Policy(
            self.model,
            tuple(steps),
            proportional_attention=self.random.random() < 0.5,
            last_block=self._last_block(),
        )

    def trials(self, count: int) -> list[Policy]:
        """Schedules as lie on fronts, from mild to deep."""
        return [self.front_like(MILD + (DEEP - MILD) * n / (count - 1)) for n in range(count)]

    def front_like(self, share: float) -> Policy:
        """A schedule as lies on fronts: an early cut, few sites, `share` of the work left.

        Or as little as its operators can leave.
        """
        blocks, steps = self.model.blocks, list[Step]()
        first = self.random.randrange(max(1, blocks // EARLY))
        after = range(first + 1, blocks - 1)
        more = self.random.sample(after, min(len(after), self.random.randrange(FRONT_SITES)))
        left = self.model.patch_tokens
        for block in (first, *sorted(more)):
            wanted = max(1, round(left * self.random.uniform(*CUT)))
            name = self.random.choice(self._usual)
            step = self._fitting(self._built(name, block, wanted), left)
            steps.append(step)
            left = step.keep
        shape = Policy(
            self.model,
            tuple(steps),
            proportional_attention=self.random.random() < 0.5,
            last_block=self._last_block(),
        )
        return match_latency(shape, share, mac_share)

    def _hand(self, most: int) -> list[tuple[int, int]]:
        """Some blocks, and for each a count that is not dealt again until all others were."""
        size = self.random.randint(1, min(most, self.model.blocks, self.model.patch_tokens))
        while len(self._deck) < size:
            fresh = list(range(1, self.model.patch_tokens + 1))
            self.random.shuffle(fresh)
            self._deck = fresh + self._deck
        counts = sorted((self._deck.pop() for _ in range(size)), reverse=True)
        blocks = sorted(self.random.sample(range(self.model.blocks), size))
        return list(zip(blocks, counts, strict=True))

    def _name(self) -> str:
        rare = [name for name in self._free if name not in USUAL] or self._free
        return self.random.choice(self._usual if self.random.random() < USUAL_SHARE else rare)

    @property
    def _free(self) -> list[str]:
        """What may stand anywhere."""
        return [name for name in self.operators if name != GRID]

    @property
    def _usual(self) -> list[str]:
        return [name for name in self._free if name in USUAL] or self._free

    def _on_grid(self, left: int) -> bool:
        side = isqrt(left)
        fits = GRID in self.operators and side * side == left and side % 2 == 0
        return fits and self.random.random() < GRID_SHARE

    def _built(self, name: str, block: int, keep: int) -> Step:
        kind, _, which = name.partition(" ")
        score = self.random.choice(self.scores)
        if kind == "prune_or_pool":
            return PruneOrPool(block, keep, THRESHOLD)
        if kind == "pool":
            return Pool(block, keep, cast(Match, which), score if which == "ranked" else None)
        if which == "fuse" and score == "random":  # which are no weights
            score = next(one for one in self.scores if one != "random")
        return Prune(block, keep, score, cast(Rest, which))

    def _fitting(self, step: Step, left: int) -> Step:
        """Return `step` with the count nearest to its own that it can leave of `left`."""
        if isinstance(step, Pool) and step.match == "grid":
            return replace(step, keep=left // 4)
        least, most = kept_range(step, left)
        return replace(step, keep=min(most, max(least, step.keep)))

    def _last_block(self) -> LastBlock:
        return self.random.choice(get_args(LastBlock)) if self.prefix_only else "full"
