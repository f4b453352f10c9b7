"""What one block does with its patch tokens: a closed set of frozen records.

Counts, not ratios: `keep` is the number of patch tokens left after the step, so that a schedule
means the same in everybody's hands.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

Score = Literal["class_attention", "random"]
Match = Literal["bipartite"]

SCORES: tuple[str, ...] = get_args(Score)
MATCHES: tuple[str, ...] = get_args(Match)


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the tokens of `block` alone; never in a policy, where no step means the same."""

    op: ClassVar[str] = "keep"
    block: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Discard all but the `keep` best-scored patch tokens, between attention and MLP of `block`."""

    op: ClassVar[str] = "prune"
    block: int
    keep: int
    score: Score = "class_attention"


@dataclass(frozen=True, slots=True)
class Pool:
    """Merge similar patch tokens until `keep` are left, between attention and MLP of `block`.

    `bipartite` is ToMe's soft matching (arXiv:2210.09461): it can at most halve the tokens.
    """

    op: ClassVar[str] = "pool"
    block: int
    keep: int
    match: Match = "bipartite"


Step = Prune | Pool
