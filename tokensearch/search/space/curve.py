"""The encoding that draws one curve of counts over depth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from heapq import heappop, heappush
from itertools import accumulate, count
from math import comb

from tokensearch.policy import Step
from tokensearch.search.space.encoding import (
    BlockReduction,
    Choice,
    Choices,
    EncodingContext,
    StepBuilder,
    counts_per_block,
    remaining_tokens,
)

# The beginning of a curve: what it misses, minus its knots, its turn, its shares, the tokens left.
_Begun = tuple[int, int, int, tuple[float, ...], int]


@dataclass(frozen=True, slots=True)
class CurveEncoding:
    """A curve of the tokens kept over depth, straight between a few knots, and one operator.

    The curve begins with all tokens before the first allowed block and never rises. Its knots lie
    evenly over the allowed blocks, one in the last, and each has a share of all patch tokens, 1
    among them. Every allowed block steps down to the curve where that is a whole step of counts.
    """

    ops: tuple[str, ...]
    left: tuple[float, ...]
    knots: int

    def dimensions(self, ground: EncodingContext) -> dict[str, tuple[Choice, ...]]:
        """`op`, and `left.N` for every knot N."""
        names = range(1, len(self._places(ground)) + 1)
        return {"op": self.ops, **{f"left.{name}": self._shares for name in names}}

    def steps(
        self, chosen: Choices, ground: EncodingContext, style: StepBuilder
    ) -> tuple[Step, ...]:
        """Return the steps that the choices spell."""
        names = range(1, len(self._places(ground)) + 1)
        shares = tuple(accumulate((chosen[f"left.{name}"] for name in names), min))
        steps, tokens = tuple[Step, ...](), ground.tokens
        for knot in names:
            found = self._down(chosen["op"], shares[:knot], ground, tokens=tokens, style=style)
            steps, tokens = steps + found, remaining_tokens(found, tokens)
        return steps

    def nearest(
        self, wanted: Sequence[BlockReduction], ground: EncodingContext, style: StepBuilder
    ) -> dict[str, Choice]:
        """Return the choices whose counts differ least from those of `wanted`, over all blocks."""
        op = reduce(_joined, wanted).operator(self.ops) if wanted else self.ops[0]
        counts = counts_per_block(wanted, ground.blocks, ground.tokens)
        shares = self._fit(op, counts, ground, style)
        return {"op": op, **{f"left.{name}": share for name, share in enumerate(shares, 1)}}

    def ways(self, ops: Sequence[str], blocks: int) -> int:
        """Curves that never rise, with an operator each, save for the one that is flat at 1."""
        knots = min(self.knots, blocks)
        return 1 + len(ops) * (comb(len(self._shares) + knots - 1, knots) - 1)

    @property
    def _shares(self) -> tuple[float, ...]:
        return (*self.left, 1.0)

    def _places(self, ground: EncodingContext) -> list[int]:
        """Which of the allowed blocks have a knot, as indices."""
        blocks = len(ground.blocks)
        knots = min(self.knots, blocks)
        return [round((knot + 1) * blocks / knots) - 1 for knot in range(knots)]

    def _down(
        self,
        op: str,
        shares: Sequence[float],
        ground: EncodingContext,
        *,
        tokens: int,
        style: StepBuilder,
    ) -> tuple[Step, ...]:
        """Return the steps behind the last knot but one, up to the last."""
        steps = tuple[Step, ...]()
        for place, share in _line(self._places(ground)[: len(shares)], shares):
            block, count = ground.blocks[place], share * ground.tokens
            found = style.one(op, block, tokens=tokens, count=count)
            if tokens - remaining_tokens(found, tokens) >= style.by:
                steps, tokens = steps + found, found[-1].keep
        return steps

    def _fit(
        self, op: str, counts: Sequence[int], ground: EncodingContext, style: StepBuilder
    ) -> tuple[float, ...]:
        """Shares of the knots whose counts differ least from `counts`, one for every block.

        The cheapest beginning is gone on with, so the first curve that reaches the end is the best.
        """
        knots, order = len(self._places(ground)), count()
        begun: list[_Begun] = [(0, 0, 0, (), ground.tokens)]
        while True:
            cost, _, _, shares, tokens = heappop(begun)
            if len(shares) == knots:
                return shares
            for share in reversed(self._shares):
                if share <= min(shares, default=1.0):
                    longer = (*shares, share)
                    steps = self._down(op, longer, ground, tokens=tokens, style=style)
                    off = self._off(longer, counts, steps, ground, tokens=tokens)
                    left = remaining_tokens(steps, tokens)
                    heappush(begun, (cost + off, -len(longer), next(order), longer, left))

    def _off(
        self,
        shares: Sequence[float],
        wanted: Sequence[int],
        steps: Sequence[Step],
        ground: EncodingContext,
        *,
        tokens: int,
    ) -> int:
        """By how many tokens `steps` miss what is `wanted`, over the blocks up to the last knot."""
        places = [place for place, _ in _line(self._places(ground)[: len(shares)], shares)]
        keep = {step.block: step.keep for step in steps}
        off = 0
        for place in places:
            tokens = keep.get(ground.blocks[place], tokens)
            off += abs(tokens - wanted[place])
        return off


def _line(places: Sequence[int], shares: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Yield the places behind the last knot but one, up to the last, with their shares."""
    begin, end = (-1, *places)[-2:]
    high, low = (1.0, *shares)[-2:]
    for place in range(begin + 1, end + 1):
        yield place, high + (low - high) * (place - begin) / (end - begin)


def _joined(one: BlockReduction, other: BlockReduction) -> BlockReduction:
    return one.then(other, block=one.block)
