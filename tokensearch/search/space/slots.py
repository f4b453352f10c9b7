"""The encoding with a few slots, each a block, an operator and a share of the tokens.

Space files call it "sites".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

from tokensearch.policy import Step
from tokensearch.search.space.encoding import (
    BlockReduction,
    Choice,
    Choices,
    EncodingContext,
    StepBuilder,
    merge_late_reductions,
    remaining_tokens,
)

_Slot = tuple[int, str, float]  # block, operator, share left


@dataclass(frozen=True, slots=True)
class SlotEncoding:
    """A few slots, each with a block or none, an operator, and a share of all patch tokens.

    Slot 1 may lie in every block but the last few, slot 2 in every block but the first, and so on,
    so that any choice of blocks is possible, and few of them in more than one order. Counts are of
    all tokens, not of those that reach a slot, so that moving or emptying one slot leaves the later
    counts unchanged.
    """

    ops: tuple[str, ...]
    left: tuple[float, ...]
    slots: int

    def dimensions(self, context: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """`site.N`, `op.N`, `left.N` for every slot N; a site behind the last block is none."""
        slots = self._slots(len(context.blocks))
        dimensions: dict[str, tuple[Choice, ...]] = {}
        for slot in range(slots):
            window = context.blocks[slot : len(context.blocks) - slots + slot + 1]
            name = slot + 1
            dimensions[f"site.{name}"] = (*window, context.depth)
            dimensions |= {f"op.{name}": self.ops, f"left.{name}": self.left}
        return dimensions

    def steps(
        self, chosen: Choices, context: EncodingContext, builder: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices stand for; of two in one block, the first slot's."""
        names = range(1, self._slots(len(context.blocks)) + 1)
        steps, tokens = tuple[Step, ...](), context.tokens
        for block, name in sorted((chosen[f"site.{name}"], name) for name in names):
            if block == context.depth or (steps and steps[-1].block == block):
                continue
            count = chosen[f"left.{name}"] * context.tokens
            step = builder.build_step(chosen[f"op.{name}"], block, tokens=tokens, count=count)
            steps, tokens = steps + step, remaining_tokens(step, tokens)
        return steps

    def nearest(
        self, wanted: Sequence[BlockReduction], context: EncodingContext, builder: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices that come nearest to the counts of `wanted`, joined if too many."""
        slots = self._slots(len(context.blocks))
        used: dict[int, _Slot] = {}
        name, tokens = 0, context.tokens
        for here in merge_late_reductions(wanted, most=slots, depth=context.depth):
            # the first free slot whose window reaches this far
            index = context.blocks.index(here.block)
            name = max(name + 1, index - (len(context.blocks) - slots) + 1)
            op = here.operator(self.ops)
            left, tokens = self._find_closest(op, here, context, tokens=tokens, builder=builder)
            used[name] = (here.block, op, left)
        return self._fill_slots(used, slots, context.depth)

    def count_schedules(self, ops: Sequence[str], blocks: int) -> int:
        """Return the number of blocks, operators and falling counts that slots can hold."""
        return sum(
            comb(blocks, used) * comb(len(self.left), used) * len(ops) ** used
            for used in range(self._slots(blocks) + 1)
        )

    def _fill_slots(self, used: Mapping[int, _Slot], slots: int, none: int) -> dict[str, Choice]:
        """Return the choices of the used slots, and of the others such as would do a little more.

        A sampler that moves an empty slot into a block has another schedule with that alone.
        """
        chosen: dict[str, Choice] = {}
        slot: _Slot = (none, self.ops[0], self.left[-1])
        for name in range(1, slots + 1):
            _, op, left = slot
            lower = self.left[max(0, self.left.index(left) - 1)]
            slot = used.get(name, (none, op, lower))
            names = (f"site.{name}", f"op.{name}", f"left.{name}")
            chosen |= zip(names, slot, strict=True)
        return chosen

    def _slots(self, blocks: int) -> int:
        return min(self.slots, blocks)

    def _find_closest(
        self,
        op: str,
        here: BlockReduction,
        context: EncodingContext,
        *,
        tokens: int,
        builder: StepBuilder,
    ) -> tuple[float, int]:
        """Return the share that leaves nearest to what is wanted, and what it leaves."""

        def kept(left: float) -> int:
            count = left * context.tokens
            return remaining_tokens(
                builder.build_step(op, here.block, tokens=tokens, count=count), tokens
            )

        left = min(self.left[::-1], key=lambda left: abs(kept(left) - here.keep))
        return left, kept(left)
