"""What one block does with its patch tokens: a closed set of frozen records.

Counts, not ratios: `keep` is the number of patch tokens left after the step, so that a schedule
means the same in everybody's hands.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

Score = Literal[
    "class_attention",
    "class_attention_value",
    "head_weighted_class_attention",
    "mean_attention",
    "random",
]
Match = Literal["bipartite", "ranked", "kmeans", "kmedoids", "agglomerative", "grid"]
Rest = Literal["drop", "fuse", "mean"]

SCORES: tuple[str, ...] = get_args(Score)
MATCHES: tuple[str, ...] = get_args(Match)
RESTS: tuple[str, ...] = get_args(Rest)
# Scores that read the class token's row of attention: for models that have a class token.
CLASS_SCORES = frozenset(score for score in SCORES if "class_attention" in score)


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the tokens of `block` alone; never in a policy, where no step means the same."""

    op: ClassVar[str] = "keep"
    block: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Discard all but the best-scored patch tokens, between attention and MLP of `block`.

    `rest` says what becomes of the discarded: nothing (`drop`), or one token more, which `keep`
    counts: their sum weighted by score (`fuse`, EViT, arXiv:2202.07800) or their mean (`mean`,
    POMT, arXiv:2407.05941).
    """

    op: ClassVar[str] = "prune"
    block: int
    keep: int
    score: Score = "class_attention"
    rest: Rest = "drop"


@dataclass(frozen=True, slots=True)
class Pool:
    """Merge similar patch tokens until `keep` are left, between attention and MLP of `block`.

    | match           | which tokens merge                                  | source              |
    |-----------------|-----------------------------------------------------|---------------------|
    | `bipartite`     | even places into odd ones; can at most halve        | ToMe, 2210.09461    |
    | `ranked`        | the lowest-scored into the most similar kept one    | DiffRate, 2305.17997|
    | `kmeans`        | clusters around means                               | 2110.03860          |
    | `kmedoids`      | clusters around one of their own tokens             | 2110.03860          |
    | `agglomerative` | the two nearest clusters, again and again; slow     | ATC, 2409.11923     |
    | `grid`          | 2 x 2 neighbours; only on a square grid still whole | control             |

    `score` ranks the tokens of `ranked`, and stays None for the others.
    """

    op: ClassVar[str] = "pool"
    block: int
    keep: int
    match: Match = "bipartite"
    score: Score | None = None

    def __post_init__(self) -> None:
        if self.match == "ranked" and self.score is None:
            object.__setattr__(self, "score", "class_attention")


@dataclass(frozen=True, slots=True)
class PruneOrPool:
    """Prune or pool, image by image: PPT's own rule (arXiv:2310.01812), kept for reference.

    An image whose normalised scores have a variance under `threshold` has no token that stands
    out, and is pooled (`bipartite`); any other is pruned. All images keep `keep` patch tokens. Both
    operators are computed for every image, so that counts and graphs stay static: the static steps
    that a search chooses are cheaper.
    """

    op: ClassVar[str] = "prune_or_pool"
    block: int
    keep: int
    threshold: float
    score: Score = "class_attention_value"

    def __post_init__(self) -> None:
        if type(self.threshold) is int:
            object.__setattr__(self, "threshold", float(self.threshold))


Step = Prune | Pool | PruneOrPool
