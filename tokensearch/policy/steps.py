"""What one block does with its patch tokens: a closed set of frozen records.

Counts, not ratios: `keep` is the number of patch tokens left after the step, so that a schedule
means the same in everybody's hands. A step acts between attention and MLP of its block, or at the
block's end (`at`).
"""

from dataclasses import dataclass
from re import fullmatch
from typing import ClassVar, Literal, get_args

Score = Literal[
    "class_attention",
    "class_attention_value",
    "head_weighted_class_attention",
    "mean_attention",
    "shift",
    "random",
    "learned",
]
OwnScore = str  # own:NAME, of a function of the user's own
Match = Literal[
    "bipartite",
    "sized_bipartite",
    "energy",
    "energy_bipartite",
    "ranked",
    "kmeans",
    "kmedoids",
    "agglomerative",
    "grid",
]
Rest = Literal["drop", "fuse", "mean"]
At = Literal["between", "block_end"]
Values = Literal["normed", "raw"]
Metric = Literal["keys", "learned"]

LEARNED = "learned"
OWN = "own:"
OWN_PATTERN = f"{OWN}[a-z0-9_]{{1,40}}"
SCORES: tuple[str, ...] = tuple(score for score in get_args(Score) if score != LEARNED)
METRICS: tuple[str, ...] = ("keys", LEARNED)
MATCHES: tuple[str, ...] = get_args(Match)
RESTS: tuple[str, ...] = get_args(Rest)
PLACES: tuple[str, ...] = get_args(At)
VALUES: tuple[str, ...] = get_args(Values)
# Scores that read the class token's row of attention: for models that have a class token.
CLASS_SCORES = frozenset(score for score in SCORES if "class_attention" in score)
# Matches that compare keys, or a learned metric.
KEY_MATCHES = ("bipartite", "sized_bipartite", "energy", "energy_bipartite", "agglomerative")
# Matches that go by a margin.
ENERGY_MATCHES = frozenset(match for match in MATCHES if match.startswith("energy"))


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the tokens of `block` alone; never in a policy, where no step means the same."""

    op: ClassVar[str] = "keep"
    block: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Discard all but the best-scored patch tokens of `block`.

    `rest` says what becomes of the discarded: nothing (`drop`), or one token more, which `keep`
    counts: their sum weighted by score (`fuse`, EViT, arXiv:2202.07800) or their mean (`mean`,
    POMT, arXiv:2407.05941).

    The score `learned` is the product of the features and a learned vector (Cropr,
    arXiv:2412.00965), `NAME.query` (width) of the tensors file, where NAME is `tensors`. The score
    `own:NAME` is a function that the user's program gives with `tokensearch.add_score`.
    """

    op: ClassVar[str] = "prune"
    block: int
    keep: int
    score: Score | OwnScore = "class_attention"
    rest: Rest = "drop"
    at: At = "between"
    tensors: str | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Merge similar patch tokens until `keep` are left, between attention and MLP of `block`.

    | match              | which tokens merge                               | source               |
    |--------------------|--------------------------------------------------|----------------------|
    | `bipartite`        | even places into odd ones; can at most halve     | ToMe, 2210.09461     |
    | `sized_bipartite`  | the same; large tokens are less similar          | MCTF, 2403.10030     |
    | `energy`           | those with many near ones; can at most halve     | PiToMe, 2405.16148   |
    | `energy_bipartite` | every second one by energy into the others       | PiToMe, 2405.16148   |
    | `ranked`           | the lowest-scored into the most similar kept one | DiffRate, 2305.17997 |
    | `kmeans`           | clusters around means                            | 2110.03860           |
    | `kmedoids`         | clusters around one of their own tokens          | 2110.03860           |
    | `agglomerative`    | the two nearest clusters, again and again; slow  | ATC, 2409.11923      |
    | `grid`             | 2 x 2 neighbours of a square grid still whole    | control              |

    `score` ranks the tokens of `ranked`, and stays None for the others. `margin` is the similarity
    from which on a neighbour is near by `energy`; None is the authors' own, which falls from 0.75
    in the first block towards 0 in the last.

    What is compared is the keys, or a `learned` metric: a linear map of what attention reads (DTEM,
    arXiv:2412.10569), `NAME.weight` (any, width) and `NAME.bias` of the tensors file, where NAME is
    `tensors`.
    """

    op: ClassVar[str] = "pool"
    at: ClassVar[At] = "between"
    block: int
    keep: int
    match: Match = "bipartite"
    score: Score | OwnScore | None = None
    margin: float | None = None
    metric: Metric = "keys"
    tensors: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "margin", _as_float(self.margin))
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
    tensors: ClassVar[str | None] = None
    at: ClassVar[At] = "between"
    block: int
    keep: int
    threshold: float
    score: Score = "class_attention_value"

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", _as_float(self.threshold))


@dataclass(frozen=True, slots=True)
class Merger:
    """Replace the patch tokens of `block` by `keep` weighted means of them: PatchMerger.

    Each of `keep` learned queries weighs all patch tokens by a softmax over tokens
    (arXiv:2202.12015). In the tensors file lie `NAME.queries` (keep, width), `NAME.norm.weight` and
    `NAME.norm.bias` (width), of the norm before, where NAME is `tensors`. `scale` multiplies the
    logits: published are 1 and width ** -0.5. The means are those of the normed tokens, or of the
    raw ones.
    """

    op: ClassVar[str] = "merger"
    score: ClassVar[None] = None
    block: int
    keep: int
    tensors: str
    scale: float = 1.0
    values: Values = "normed"
    at: At = "block_end"

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _as_float(self.scale))


@dataclass(frozen=True, slots=True)
class Threshold:
    """Keep the patch tokens of `block` that score above `threshold`: AS-ViT (arXiv:2209.13802).

    Images keep as many as they have of them, `keep` of them in the mean over those that the
    threshold was found on. Only policies whose `counts` are per image hold such steps.
    """

    op: ClassVar[str] = "threshold"
    tensors: ClassVar[str | None] = None
    block: int
    keep: int
    threshold: float
    score: Score = "head_weighted_class_attention"
    at: At = "block_end"

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", _as_float(self.threshold))


Step = Prune | Pool | PruneOrPool | Merger | Threshold
Shape = tuple[int | None, ...]  # None: any number


def is_own(score: object) -> bool:
    """Whether a score is computed by a function of the user's own."""
    return type(score) is str and fullmatch(OWN_PATTERN, score) is not None


def _as_float(value: object) -> object:
    """Return an integer as the float that it means, so that equal steps have equal hashes."""
    return float(value) if type(value) is int else value


def tensors_of(step: Step, width: int) -> dict[str, Shape]:
    """Names and shapes of the tensors that a step needs of a model with `width` features."""
    names = roles_of(step)
    return {names[role]: shape for role, shape in _shapes(step, width).items()}


def roles_of(step: Step) -> dict[str, str]:
    """What a step has learned, with the name of each in the tensors file."""
    return {role: f"{step.tensors}.{role}" for role in _shapes(step, 0)}


def _shapes(step: Step, width: int) -> dict[str, Shape]:
    match step:
        case Prune(score="learned"):
            return {"query": (width,)}
        case Pool(metric="learned"):
            return {"weight": (None, width), "bias": (None,)}
        case Merger():
            return {
                "queries": (step.keep, width),
                "norm.weight": (width,),
                "norm.bias": (width,),
            }
        case _:
            return {}
