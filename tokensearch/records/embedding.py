"""How close embeddings stay to the baseline's, as records; see `accuracy.embeddings`."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tokensearch.stats.interval import Interval

# "embedding": one vector for an image. "dense": one for each of its patches; what compares images
# then goes by their mean.
EmbeddingKind = Literal["embedding", "dense"]
# What counts as right for an image: that its nearest neighbour is the one it has in the baseline,
# or its class, by k-NN or by the linear probe.
RightBy = Literal["recall", "knn", "probe"]

_OMIT = {"omit_none": True}


@dataclass(frozen=True, slots=True)
class EmbeddingAccuracy:
    """Embeddings of one split beside the baseline's, with a Wilson interval of what is right."""

    WRITTEN: ClassVar = (
        *("kind", "right_by", "split", "split_hash", "images", "cosine"),
        *("right", "share", "low", "high", "level", "recall_at_1", "recall_at_10"),
        *("knn", "probe"),
    )
    kind: EmbeddingKind
    right_by: RightBy
    split: str  # "search", "select" or "report"
    split_hash: str
    images: int
    cosine: float  # mean similarity to the baseline's embedding of the same image, or patch
    right: int
    low: float  # interval of `share`
    high: float
    level: float
    recall_at_1: float  # share of images with the nearest neighbour that they have in the baseline
    recall_at_10: float  # share of the baseline's ten nearest that are among the ten nearest
    knn: float | None = field(default=None, metadata=_OMIT)  # share of right classes
    probe: float | None = field(default=None, metadata=_OMIT)

    @property
    def share(self) -> float:
        """Share of images that are right, 0 to 1."""
        return self.right / self.images

    @property
    def interval(self) -> Interval:
        """The share of right images with its interval."""
        return Interval(self.share, self.low, self.high)

    @property
    def divergence(self) -> float:
        """Mean distance from the baseline's embeddings: 1 minus the cosine."""
        return 1.0 - self.cosine
