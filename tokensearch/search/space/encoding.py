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
    """How tokens are scored, matched and discarded, and which counts may be left.

    Every method returns no step where the count that is asked for would remove nothing, so that
    any count is a valid wish.
    """

    score: Score
    match: Match
    rest: Rest
    by: int  # counts are multiples of this

    def one(self, op: str, block: int, *, tokens: int, count: float) -> tuple[Step, ...]:
        """Prune or pool the `tokens` that reach `block` to about `count`, as far as `op` can."""
        if op == "prune":
            return self._down(Prune(block, tokens, self.score, self.rest), count)
        score = self.score if self.match == "ranked" else None
        return self._down(Pool(block, tokens, self.match, score), count)

    def both(self, block: int, *, tokens: int, count: float, pooled: float) -> tuple[Step, ...]:
        """Prune to about `count`, then pool to the share `pooled` of what is left.

        The discarded of such a prune are dropped: a policy allows nothing else before a pool.
        """
        pruned = self._down(Prune(block, tokens, self.score), count)
        left = remaining_tokens(pruned, tokens)
        then = self.one("pool", block, tokens=left, count=pooled * left)
        return pruned + then if then else self.one("prune", block, tokens=tokens, count=count)

    def _down(self, whole: Prune | Pool, count: float) -> tuple[Step, ...]:
        """`whole`, which keeps every token there is, with the allowed count nearest to `count`."""
        least, most = kept_range(whole, whole.keep)
        keep = self.by * max(ceil(least / self.by), round(count / self.by))
        return (replace(whole, keep=keep),) if keep < most else ()


def remaining_tokens(steps: tuple[Step, ...], tokens: int) -> int:
    """Patch tokens that are left of `tokens` after the steps."""
    return steps[-1].keep if steps else tokens


@dataclass(frozen=True, slots=True)
class BlockReduction:
    """All that happens in one block, in patch tokens."""

    block: int
    reached: int  # tokens that reach the block
    pruned: int  # left of them by pruning alone
    keep: int  # left of them in the end

    def operator(self, ops: Sequence[str]) -> str:
        """Which of `ops` is most like it: what removes most of the tokens decides."""
        by_prune, by_pool = self.reached - self.pruned, self.pruned - self.keep
        liked = ["prune", "pool"] if by_prune >= by_pool else ["pool", "prune"]
        liked.insert(0 if by_prune and by_pool else 2, "prune_pool")
        return next((op for op in liked if op in ops), ops[0])

    def then(self, other: "BlockReduction", *, block: int) -> "BlockReduction":
        """Return both as one, in `block`."""
        pruned = self.pruned - (other.reached - other.pruned)
        return BlockReduction(block, self.reached, pruned, other.keep)


def block_reductions(
    policy: Policy, model: ModelSpec, blocks: Sequence[int]
) -> list[BlockReduction]:
    """What `policy` does, each step moved to the nearest of `blocks`, by ratio to another model.

    Steps that land in one block become one. A step that only fuses, without a token fewer, has no
    count to carry over.
    """
    landed: dict[int, BlockReduction] = {}
    left = model.patch_tokens
    for step in _steps_of(policy, model):
        if step.keep >= left:
            continue
        block = _nearest_block(blocks, step.block)
        pruned = left if isinstance(step, Pool) else step.keep
        found = BlockReduction(block, left, pruned, step.keep)
        landed[block] = landed[block].then(found, block=block) if block in landed else found
        left = step.keep
    return list(landed.values())


def merge_late_reductions(
    found: Sequence[BlockReduction], *, most: int, depth: int
) -> list[BlockReduction]:
    """At most `most` of the reductions of a model with `depth` blocks.

    One after the other is put off to the next or brought forward to the one before, whichever
    moves the fewest tokens through the fewest blocks; among equals the one that makes up for what
    was moved before, since the work that is saved should stay what it was.
    """
    kept, moved = list(found), 0
    while len(kept) > most:
        change, kept = _mildest(_with_one_less(kept, depth), moved)
        moved += change
    return kept


def _mildest(
    options: Iterator[tuple[int, list[BlockReduction]]], moved: int
) -> tuple[int, list[BlockReduction]]:
    return min(options, key=lambda option: (abs(option[0]), abs(moved + option[0])))


def _with_one_less(
    found: list[BlockReduction], depth: int
) -> Iterator[tuple[int, list[BlockReduction]]]:
    """Yield every way to have one reduction less, with the token-blocks that it adds."""
    for at, (one, other) in enumerate(pairwise(found)):
        gap = other.block - one.block
        before, after = found[:at], found[at + 2 :]
        put_off = one.then(other, block=other.block)
        brought_forward = one.then(other, block=one.block)
        yield gap * (one.reached - one.keep), [*before, put_off, *after]
        yield -gap * (other.reached - other.keep), [*before, brought_forward, *after]
    last = found[-1]
    yield (depth - last.block) * (last.reached - last.keep), found[:-1]


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
    """What an encoding has to know of a model."""

    blocks: tuple[int, ...]  # that may reduce; never empty
    depth: int  # blocks in all
    tokens: int  # patch tokens that enter block 0


class Encoding(Protocol):
    """One way to spell schedules."""

    @property
    def ops(self) -> tuple[str, ...]:
        """Operators that may be chosen."""
        ...

    @property
    def left(self) -> tuple[float, ...]:
        """Shares of tokens that may be kept, ascending."""
        ...

    def dimensions(self, ground: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """Every choice that is to be made, with what may be chosen."""
        ...

    def steps(
        self, chosen: Choices, ground: EncodingContext, style: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices spell."""
        ...

    def nearest(
        self, wanted: Sequence[BlockReduction], ground: EncodingContext, style: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices that spell what is nearest to `wanted`, which lies in the blocks."""
        ...

    def ways(self, ops: Sequence[str], blocks: int) -> int:
        """How many different wishes can be spelled with the operators `ops` in so many blocks."""
        ...
