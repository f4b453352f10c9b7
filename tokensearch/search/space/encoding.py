"""A schedule as a flat list of choices, and its steps made from them.

There are two encodings, PerBlockEncoding and SlotEncoding. Each is flat and of fixed length: every
choice is always made, and one that does not matter is ignored. So samplers see one box instead of
a tree of conditional parameters. The Gaussian-process and multivariate samplers of Optuna need
that. Each is also total: any choices give a schedule, and what cannot be done is left out. A slot
that asks for more tokens than reach it does nothing; a pool that cannot merge so many merges what
it can.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from typing import Any, Protocol

from tokensearch.policy import ModelSpec, Policy, Pool, Prune, Step
from tokensearch.policy.checks import kept_range
from tokensearch.policy.rescale import rescaled
from tokensearch.policy.steps import Match, Rest, Score


@dataclass(frozen=True, slots=True)
class StepBuilder:
    """Builds steps: how tokens are scored, matched and discarded, and which counts may be left.

    Every method returns no step where the given count would remove nothing, so that any count is
    valid.
    """

    score: Score
    match: Match
    rest: Rest
    by: int  # counts are multiples of this

    def build_step(self, op: str, block: int, *, tokens: int, count: float) -> tuple[Step, ...]:
        """Prune or pool the `tokens` that reach `block` to about `count`, as far as `op` can."""
        if op == "prune":
            return self._round_down(Prune(block, tokens, self.score, self.rest), count)
        score = self.score if self.match == "ranked" else None
        return self._round_down(Pool(block, tokens, self.match, score), count)

    def build_pair(
        self, block: int, *, tokens: int, count: float, pooled: float
    ) -> tuple[Step, ...]:
        """Prune to about `count`, then pool to the share `pooled` of what is left.

        The discarded of such a prune are dropped: a policy allows nothing else before a pool.
        """
        pruned = self._round_down(Prune(block, tokens, self.score), count)
        left = remaining_tokens(pruned, tokens)
        then = self.build_step("pool", block, tokens=left, count=pooled * left)
        return (
            pruned + then if then else self.build_step("prune", block, tokens=tokens, count=count)
        )

    def _round_down(self, whole: Prune | Pool, count: float) -> tuple[Step, ...]:
        """`whole`, which keeps every token there is, with the allowed count nearest to `count`."""
        least, most = kept_range(whole, whole.keep)
        keep = self.by * max(ceil(least / self.by), round(count / self.by))
        return (replace(whole, keep=keep),) if keep < most else ()


def remaining_tokens(steps: tuple[Step, ...], tokens: int) -> int:
    """Return the patch tokens that are left of `tokens` after the steps."""
    return steps[-1].keep if steps else tokens


@dataclass(frozen=True, slots=True)
class BlockReduction:
    """What one block does, in patch tokens."""

    block: int
    reached: int  # tokens that reach the block
    pruned: int  # left of them by pruning alone
    keep: int  # left of them in the end

    def operator(self, ops: Sequence[str]) -> str:
        """Return the most similar of `ops`: what removes most of the tokens decides."""
        by_prune, by_pool = self.reached - self.pruned, self.pruned - self.keep
        similar = ["prune", "pool"] if by_prune >= by_pool else ["pool", "prune"]
        similar.insert(0 if by_prune and by_pool else 2, "prune_pool")
        return next((op for op in similar if op in ops), ops[0])

    def then(self, other: "BlockReduction", *, block: int) -> "BlockReduction":
        """Return both as one, in `block`."""
        pruned = self.pruned - (other.reached - other.pruned)
        return BlockReduction(block, self.reached, pruned, other.keep)


def block_reductions(
    policy: Policy, model: ModelSpec, blocks: Sequence[int]
) -> list[BlockReduction]:
    """Return what `policy` does, each step moved to the nearest of `blocks`.

    Steps are carried over to a model of another geometry by ratio.

    Steps that land in one block become one. A step that only fuses, without a token fewer, has no
    count to carry over.
    """
    reductions: dict[int, BlockReduction] = {}
    left = model.patch_tokens
    for step in _steps_of(policy, model):
        if step.keep >= left:
            continue
        block = _nearest_block(blocks, step.block)
        pruned = left if isinstance(step, Pool) else step.keep
        reduction = BlockReduction(block, left, pruned, step.keep)
        if block in reductions:
            reduction = reductions[block].then(reduction, block=block)
        reductions[block] = reduction
        left = step.keep
    return list(reductions.values())


def merge_late_reductions(
    reductions: Sequence[BlockReduction], *, most: int, depth: int
) -> list[BlockReduction]:
    """Merge the reductions of a model with `depth` blocks until at most `most` are left.

    One after the other is merged into the next or the previous one, whichever moves the fewest
    tokens through the fewest blocks. Among equals it is the one that balances earlier moves, so
    that the work saved stays the same.
    """
    kept, moved = list(reductions), 0
    while len(kept) > most:
        change, kept = _mildest_option(_merge_options(kept, depth), moved)
        moved += change
    return kept


def _mildest_option(
    options: Iterator[tuple[int, list[BlockReduction]]], moved: int
) -> tuple[int, list[BlockReduction]]:
    return min(options, key=lambda option: (abs(option[0]), abs(moved + option[0])))


def _merge_options(
    reductions: list[BlockReduction], depth: int
) -> Iterator[tuple[int, list[BlockReduction]]]:
    """Yield every way to have one reduction fewer, with the token-blocks that it adds."""
    for at, (first, second) in enumerate(pairwise(reductions)):
        gap = second.block - first.block
        before, after = reductions[:at], reductions[at + 2 :]
        later = first.then(second, block=second.block)
        earlier = first.then(second, block=first.block)
        yield gap * (first.reached - first.keep), [*before, later, *after]
        yield -gap * (second.reached - second.keep), [*before, earlier, *after]
    last = reductions[-1]
    yield (depth - last.block) * (last.reached - last.keep), reductions[:-1]


def _steps_of(policy: Policy, model: ModelSpec) -> tuple[Step, ...]:
    made_for = policy.model
    if (made_for.blocks, made_for.patch_tokens) == (model.blocks, model.patch_tokens):
        return policy.steps
    return rescaled(policy.steps, model, blocks=made_for.blocks, patch_tokens=made_for.patch_tokens)


def _nearest_block(blocks: Sequence[int], block: int) -> int:
    return min(blocks, key=lambda allowed: abs(allowed - block))


Choice = str | int | float | bool
Choices = Mapping[str, Any]  # a choice by the name of every dimension


@dataclass(frozen=True, slots=True)
class EncodingContext:
    """What an encoding needs to know about a model."""

    blocks: tuple[int, ...]  # that may reduce; never empty
    depth: int  # blocks in all
    tokens: int  # patch tokens that enter block 0


class Encoding(Protocol):
    """One way to write schedules as choices."""

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators that may be chosen."""
        ...

    @property
    def left(self) -> tuple[float, ...]:
        """Shares of tokens that may be kept, ascending."""
        ...

    def dimensions(self, context: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """Every dimension with its choices."""
        ...

    def steps(
        self, chosen: Choices, context: EncodingContext, builder: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices stand for."""
        ...

    def nearest(
        self, wanted: Sequence[BlockReduction], context: EncodingContext, builder: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices nearest to `wanted`, whose reductions lie in allowed blocks."""
        ...

    def count_schedules(self, ops: Sequence[str], blocks: int) -> int:
        """Return the number of different choices with the operators `ops` in so many blocks."""
        ...
