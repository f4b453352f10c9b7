"""How a schedule is spelled as a flat list of choices: what its encodings share.

There are three, to be compared: PerBlock, Sites and Knots. Each is flat and of fixed length: every
choice is always made, and one that turns out not to matter is ignored. Samplers then see one box,
not a tree of conditional parameters, which the Gaussian-process and multivariate samplers of Optuna
need. And each is total: whatever is chosen spells a schedule. What is asked for in vain is left
out, a site that asks for more tokens than reach it for one; a pool that cannot merge so many merges
what it can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tokensearch.policy import Step
from tokensearch.search.reductions import Reduction
from tokensearch.search.style import Style

Choice = str | int | float | bool
Chosen = Mapping[str, Any]  # a choice by the name of every dimension


@dataclass(frozen=True, slots=True)
class Ground:
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

    def dimensions(self, ground: Ground) -> dict[str, tuple[Choice, ...]]:
        """Every choice that is to be made, with what may be chosen."""
        ...

    def steps(self, chosen: Chosen, ground: Ground, style: Style) -> tuple[Step, ...]:
        """Return the steps that the choices spell."""
        ...

    def nearest(
        self, wanted: Sequence[Reduction], ground: Ground, style: Style
    ) -> dict[str, Choice]:
        """Return the choices that spell what is nearest to `wanted`, which lies in the blocks."""
        ...

    def ways(self, ops: Sequence[str], blocks: int) -> int:
        """How many different wishes can be spelled with the operators `ops` in so many blocks."""
        ...
