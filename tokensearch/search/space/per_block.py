"""The encoding that gives every block an operator and a share of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokensearch.policy import Prune, Step
from tokensearch.search.space.encoding import (
    BlockReduction,
    Choice,
    Choices,
    EncodingContext,
    StepBuilder,
    remaining_tokens,
)

_Choices = tuple[str, float, float]  # operator, share left by it, share left by a pool after it


@dataclass(frozen=True, slots=True)
class PerBlockEncoding:
    """Every allowed block has an operator, and a share of the tokens that reach it.

    A block that prunes and then pools (DiffRate, arXiv:2305.17997) has two shares.
    """

    ops: tuple[str, ...]
    left: tuple[float, ...]

    def dimensions(self, context: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """`op.B`, `left.B` and, where a block may do both, `pooled.B` for every block B."""
        dimensions: dict[str, tuple[Choice, ...]] = {}
        for block in context.blocks:
            dimensions |= {f"op.{block}": self.ops, f"left.{block}": self.left}
            if "prune_pool" in self.ops:
                dimensions[f"pooled.{block}"] = self.left
        return dimensions

    def steps(
        self, chosen: Choices, context: EncodingContext, builder: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices stand for."""
        steps, tokens = tuple[Step, ...](), context.tokens
        for block in context.blocks:
            pooled = chosen.get(f"pooled.{block}", 1.0)
            choice = (chosen[f"op.{block}"], chosen[f"left.{block}"], pooled)
            block_steps = self._steps_at(block, choice, tokens, builder)
            steps, tokens = steps + block_steps, remaining_tokens(block_steps, tokens)
        return steps

    def nearest(
        self, wanted: Sequence[BlockReduction], context: EncodingContext, builder: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices that come nearest to the counts of `wanted`, block by block."""
        by_block = {reduction.block: reduction for reduction in wanted}
        chosen: dict[str, Choice] = {}
        keep = tokens = context.tokens
        for block in context.blocks:
            here = by_block.get(block)
            ops = self._idle if here is None else (here.operator(self.ops),)
            pruned, keep = (keep, keep) if here is None else (here.pruned, here.keep)
            choice = self._find_closest(block, ops, (pruned, keep), tokens=tokens, builder=builder)
            tokens = remaining_tokens(self._steps_at(block, choice, tokens, builder), tokens)
            chosen |= zip((f"op.{block}", f"left.{block}", f"pooled.{block}"), choice, strict=True)
        return chosen

    def count_schedules(self, ops: Sequence[str], blocks: int) -> int:
        """In every block: nothing, or one of the operators with its share, or two shares."""
        shares = len(self.left)
        here = sum(shares * shares if op == "prune_pool" else shares for op in ops)
        choices: int = (here + ("keep" in self.ops)) ** blocks
        return choices

    @property
    def _idle(self) -> tuple[str, ...]:
        return ("keep",) if "keep" in self.ops else self.ops

    def _steps_at(
        self, block: int, choice: _Choices, tokens: int, builder: StepBuilder
    ) -> tuple[Step, ...]:
        op, left, pooled = choice
        if op == "keep":
            return ()
        if op == "prune_pool":
            return builder.build_pair(block, tokens=tokens, count=left * tokens, pooled=pooled)
        return builder.build_step(op, block, tokens=tokens, count=left * tokens)

    def _find_closest(
        self,
        block: int,
        ops: Sequence[str],
        wanted: tuple[int, int],
        *,
        tokens: int,
        builder: StepBuilder,
    ) -> _Choices:
        """Return what leaves nearest to the wanted counts, pruned and in the end."""

        def distance(choice: _Choices) -> tuple[int, int]:
            steps = self._steps_at(block, choice, tokens, builder)
            keep = remaining_tokens(steps, tokens)
            pruned = next((step.keep for step in steps if isinstance(step, Prune)), tokens)
            return abs(keep - wanted[1]), abs(pruned - wanted[0])

        shares = self.left[::-1]
        options = (
            (op, left, pooled)
            for op in ops
            for left in (shares if op != "keep" else shares[:1])
            for pooled in (shares if op == "prune_pool" else shares[:1])
        )
        return min(options, key=distance)
