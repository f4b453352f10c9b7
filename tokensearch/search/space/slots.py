"""The encoding that gives a few reduction sites a block, an operator and a count each."""

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
    so that any choice of blocks can be spelled, and few of them in more than one order. Counts are
    of all tokens, not of those that reach a site, so that moving or dropping one site leaves the
    counts behind it as they were.
    """

    ops: tuple[str, ...]
    left: tuple[float, ...]
    slots: int

    def dimensions(self, ground: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """`site.N`, `op.N`, `left.N` for every slot N; a site behind the last block is none."""
        slots = self._slots(len(ground.blocks))
        found: dict[str, tuple[Choice, ...]] = {}
        for slot in range(slots):
            window = ground.blocks[slot : len(ground.blocks) - slots + slot + 1]
            name = slot + 1
            found[f"site.{name}"] = (*window, ground.depth)
            found |= {f"op.{name}": self.ops, f"left.{name}": self.left}
        return found

    def steps(
        self, chosen: Choices, ground: EncodingContext, style: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices spell; of two in one block, the first slot's."""
        names = range(1, self._slots(len(ground.blocks)) + 1)
        steps, tokens = tuple[Step, ...](), ground.tokens
        for block, name in sorted((chosen[f"site.{name}"], name) for name in names):
            if block == ground.depth or (steps and steps[-1].block == block):
                continue
            count = chosen[f"left.{name}"] * ground.tokens
            found = style.one(chosen[f"op.{name}"], block, tokens=tokens, count=count)
            steps, tokens = steps + found, remaining_tokens(found, tokens)
        return steps

    def nearest(
        self, wanted: Sequence[BlockReduction], ground: EncodingContext, style: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices that come nearest to the counts of `wanted`, joined if too many."""
        slots = self._slots(len(ground.blocks))
        used: dict[int, _Slot] = {}
        name, tokens = 0, ground.tokens
        for here in merge_late_reductions(wanted, most=slots, depth=ground.depth):
            # the first free slot whose window reaches this far
            place = ground.blocks.index(here.block)
            name = max(name + 1, place - (len(ground.blocks) - slots) + 1)
            op = here.operator(self.ops)
            left, tokens = self._closest(op, here, ground, tokens=tokens, style=style)
            used[name] = (here.block, op, left)
        return self._filled(used, slots, ground.depth)

    def ways(self, ops: Sequence[str], blocks: int) -> int:
        """Sites, an operator for each, and counts that fall from each to the next."""
        return sum(
            comb(blocks, sites) * comb(len(self.left), sites) * len(ops) ** sites
            for sites in range(self._slots(blocks) + 1)
        )

    def _filled(self, used: Mapping[int, _Slot], slots: int, none: int) -> dict[str, Choice]:
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

    def _closest(
        self,
        op: str,
        here: BlockReduction,
        ground: EncodingContext,
        *,
        tokens: int,
        style: StepBuilder,
    ) -> tuple[float, int]:
        """Return the share that leaves nearest to what is wanted, and what it leaves."""

        def kept(left: float) -> int:
            count = left * ground.tokens
            return remaining_tokens(style.one(op, here.block, tokens=tokens, count=count), tokens)

        left = min(self.left[::-1], key=lambda left: abs(kept(left) - here.keep))
        return left, kept(left)
