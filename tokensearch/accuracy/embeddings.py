"""Embeddings of a model for every image, and how close they stay to the baseline's."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.accuracy.readouts import UNKNOWN_CLASS, Readouts
from tokensearch.data.splits import Split
from tokensearch.errors import MeasurementError
from tokensearch.policy import Objective
from tokensearch.records.embedding import RightBy

NEIGHBOURS = 10  # of recall@10
_ROWS = 1024  # images whose similarities to all others are held at once
RIGHT_BY: dict[Objective, RightBy] = {"cosine": "recall", "knn": "knn", "probe": "probe"}


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A model's embeddings of M images, in order."""

    vectors: Tensor  # (M, D) float32, on the CPU; of dense outputs the mean of the patches
    patches: Tensor | None  # (M, N, D) float16 of length 1: dense outputs alone
    labels: Tensor  # (M,) int64, -1 where there is none


def embed_images(
    output: Tensor, labels: Tensor, split: Split, *, first: int, prefix_tokens: int
) -> Embeddings:
    """Read what a model returned for the images of a split from number `first` on.

    output         (M, D), or (M, P + N, D) with P prefix tokens, which are left out
    labels         (M,)
    prefix_tokens  P

    Raises:
        MeasurementError: The output has another shape, or is not all finite.
    """
    if output.ndim not in {2, 3} or len(output) != len(labels):
        raise MeasurementError(
            f"the model returned {tuple(output.shape)} for {len(labels)} images, not one embedding "
            f"each, or one for each token"
        )
    not_finite = (~output.isfinite()).flatten(1).any(dim=1).nonzero()
    if len(not_finite):
        raise MeasurementError(
            f"the model's embedding is not finite for image {first + int(not_finite[0])} of the "
            f"{split.purpose} split, counted from 0"
        )
    output = output.float().cpu()
    if output.ndim == 2:
        return Embeddings(output, None, labels)
    patches = output[:, prefix_tokens:]
    return Embeddings(patches.mean(dim=1), F.normalize(patches, dim=-1).half(), labels)


@dataclass(frozen=True, slots=True)
class EmbeddingResults:
    """Results of every image: all that accuracy, paired comparison and objectives need."""

    right_by: RightBy
    dense: bool
    labels: Tensor  # (M,) int64, -1 where there is none
    cosine: Tensor  # (M,) float64, similarity to the baseline's embedding; of patches their mean
    vectors: Tensor  # (M, D) float32
    baseline: Tensor  # (M, D) float32, those of the baseline
    knn: Tensor  # (M,) int64, class by k-NN, -1 where it was not asked
    probe: Tensor  # (M,) int64, class by the linear probe, likewise
    baseline_knn: Tensor  # (M,) int64, the same of the baseline
    baseline_probe: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def divergence(self) -> Tensor:
        """Distance from the baseline's embedding, 1 minus the cosine: (M,) float64."""
        return 1.0 - self.cosine

    def right(self, _: Split) -> Tensor:
        """Whether each image is right: (M,) bool."""
        match self.right_by:
            case "recall":
                return self.nearest_kept
            case "knn":
                return self.knn == self.labels
            case "probe":
                return self.probe == self.labels

    def baseline_right(self, _: Split) -> Tensor:
        """Whether each image is right in the baseline: (M,) bool."""
        match self.right_by:
            case "recall":
                return torch.ones(len(self), dtype=torch.bool)
            case "knn":
                return self.baseline_knn == self.labels
            case "probe":
                return self.baseline_probe == self.labels

    def per_image(self, split: Split, objective: Objective) -> Tensor:
        """Return what every image adds to the objective, (M,) float64; more is better."""
        return -self.divergence if objective == "cosine" else self.right(split).double()

    @property
    def nearest_kept(self) -> Tensor:
        """Whether each image's nearest neighbour is the one it has in the baseline: (M,) bool.

        Neighbours are looked for among these images, by the cosine. One image alone keeps its own.
        """
        own, before = self._neighbours(1)
        return (own == before).all(dim=1)

    @property
    def nearest_ten_kept(self) -> Tensor:
        """Share of each image's ten nearest in the baseline that are so still: (M,) float64.

        Of fewer images all others are nearest.
        """
        own, before = self._neighbours(NEIGHBOURS)
        if not before.shape[1]:
            return torch.ones(len(self), dtype=torch.float64)
        return (before[:, :, None] == own[:, None, :]).any(dim=2).double().mean(dim=1)

    def _neighbours(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the nearest images of each by these embeddings, and by the baseline's."""
        count = min(count, len(self) - 1)
        return nearest(self.vectors, count), nearest(self.baseline, count)


def nearest(vectors: Tensor, count: int) -> Tensor:
    """Return the most similar other rows of each of (M, D), nearest first: (M, count) int64."""
    unit = F.normalize(vectors, dim=1)
    parts = []
    for start in range(0, len(unit), _ROWS):
        similarity = unit[start : start + _ROWS] @ unit.T
        rows = torch.arange(len(similarity))
        similarity[rows, rows + start] = -torch.inf
        parts.append(similarity.topk(count, dim=1).indices)
    return torch.cat(parts)


def compare_embeddings(
    own: Embeddings,
    baseline: Embeddings,
    *,
    right_by: RightBy,
    readouts: Readouts | None = None,
    among: range | None = None,
) -> EmbeddingResults:
    """Compare a model's embeddings with the baseline's, image by image.

    readouts  what tells classes by embeddings; None without labels
    among     their numbers, where the images are some of those that `readouts` were fitted on

    Raises:
        MeasurementError: The two saw different images, or their embeddings have different shapes.
    """
    if not torch.equal(own.labels, baseline.labels):
        raise MeasurementError(
            f"candidate and baseline did not see the same images: "
            f"{len(own.labels)} against {len(baseline.labels)}"
        )
    mine, theirs = (one.vectors if one.patches is None else one.patches for one in (own, baseline))
    if mine.shape != theirs.shape:
        raise MeasurementError(
            f"candidate and baseline return embeddings of different shapes: "
            f"{tuple(mine.shape[1:])} against {tuple(theirs.shape[1:])}"
        )
    cosine = F.cosine_similarity(mine.double(), theirs.double(), dim=-1).clamp(max=1.0)
    # What searching does not go by is read of other images alone: probes take seconds to fit.
    read = partial(_read_classes, readouts, among=among, own=right_by)
    return EmbeddingResults(
        right_by=right_by,
        dense=own.patches is not None,
        labels=own.labels,
        cosine=cosine if cosine.ndim == 1 else cosine.mean(dim=1),
        vectors=own.vectors,
        baseline=baseline.vectors,
        knn=read("knn", own.vectors),
        probe=read("probe", own.vectors),
        baseline_knn=read("knn", baseline.vectors),
        baseline_probe=read("probe", baseline.vectors),
    )


def _read_classes(
    readouts: Readouts | None, by: RightBy, vectors: Tensor, *, among: range | None, own: RightBy
) -> Tensor:
    """Return a class for each of (M, D), UNKNOWN_CLASS where none is asked for: (M,) int64."""
    if readouts is None or (among is not None and by != own):
        return torch.full((len(vectors),), UNKNOWN_CLASS)
    return (readouts.knn if by == "knn" else readouts.probe)(vectors, among)
