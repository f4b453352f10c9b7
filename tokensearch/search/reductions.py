"""Where a given policy reduces, carried over to the blocks that a search space allows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokensearch.policy import ModelSpec, Policy, Pool, Step
from tokensearch.policy.rescale import rescaled


@dataclass(frozen=True, slots=True)
class Reduction:
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

    def then(self, other: "Reduction", *, block: int) -> "Reduction":
        """Return both as one, in `block`."""
        pruned = self.pruned - (other.reached - other.pruned)
        return Reduction(block, self.reached, pruned, other.keep)


def reductions(policy: Policy, model: ModelSpec, blocks: Sequence[int]) -> list[Reduction]:
    """What `policy` does, each step moved to the nearest of `blocks`, by ratio to another model.

    Steps that land in one block become one. A step that only fuses, without a token fewer, has no
    count to carry over.
    """
    landed: dict[int, Reduction] = {}
    left = model.patch_tokens
    for step in _steps(policy, model):
        if step.keep >= left:
            continue
        block = _nearest(blocks, step.block)
        pruned = left if isinstance(step, Pool) else step.keep
        found = Reduction(block, left, pruned, step.keep)
        landed[block] = landed[block].then(found, block=block) if block in landed else found
        left = step.keep
    return list(landed.values())


def counts_at(found: Sequence[Reduction], blocks: Sequence[int], tokens: int) -> list[int]:
    """Patch tokens left at each of `blocks` by reductions that lie in some of them."""
    keep = {reduction.block: reduction.keep for reduction in found}
    counts = []
    for block in blocks:
        tokens = keep.get(block, tokens)
        counts.append(tokens)
    return counts


def thinned(found: Sequence[Reduction], *, most: int, depth: int) -> list[Reduction]:
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
    options: Iterator[tuple[int, list[Reduction]]], moved: int
) -> tuple[int, list[Reduction]]:
    return min(options, key=lambda option: (abs(option[0]), abs(moved + option[0])))


def _with_one_less(found: list[Reduction], depth: int) -> Iterator[tuple[int, list[Reduction]]]:
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


def _steps(policy: Policy, model: ModelSpec) -> tuple[Step, ...]:
    made_for = policy.model
    if (made_for.blocks, made_for.patch_tokens) == (model.blocks, model.patch_tokens):
        return policy.steps
    return rescaled(policy.steps, model, blocks=made_for.blocks, patch_tokens=made_for.patch_tokens)


def _nearest(blocks: Sequence[int], block: int) -> int:
    return min(blocks, key=lambda allowed: abs(allowed - block))
