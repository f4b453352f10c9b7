"""Classes read from embeddings: by k nearest neighbours, and by a linear probe.

Both are fitted on the embeddings that the baseline gives the labelled images of `search`, and asked
about those of a reduced model: as whoever replaces a model under a classifier that is in use.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Votes of the nearest images, each weighted by exp(cosine / temperature). Source: DINO,
# arXiv:2104.14294, as its authors' code has it.
K, TEMPERATURE = 20, 0.07
FOLDS = 5  # of `search`, so that no image is judged by a probe that was fitted on it
MAX_ITERATIONS = 1000
UNKNOWN_CLASS = -1


@dataclass(frozen=True)
class Readouts:
    """A k-NN classifier and linear probes of some images."""

    vectors: Tensor  # (G, D) float32, as the baseline embeds them
    labels: Tensor  # (G,) int64

    def knn(self, vectors: Tensor, among: range | None = None) -> Tensor:
        """Return the class of each of (M, D) by the votes of its neighbours: (M,) int64.

        among  which of the images these are; none votes for itself
        """
        similarity = F.normalize(vectors, dim=1) @ self._unit.T
        if among is not None:
            similarity[torch.arange(len(vectors)), torch.tensor(among)] = -torch.inf
        weights, nearest = similarity.topk(min(K, len(self.labels)), dim=1)
        votes = torch.zeros(len(vectors), int(self.labels.max()) + 1)
        votes.scatter_add_(1, self.labels[nearest], (weights / TEMPERATURE).exp())
        return votes.argmax(dim=1)

    def probe(self, vectors: Tensor, among: range | None = None) -> Tensor:
        """Return the class of each of (M, D) by a linear classifier: (M,) int64.

        among  which of the images these are; each is judged by a probe fitted on the other folds
        """
        given = vectors.numpy()
        if among is None:
            return torch.from_numpy(self._whole.predict(given))
        judged = torch.full((len(vectors),), UNKNOWN_CLASS)
        own = self._fold_of[torch.tensor(among)]
        for fold, classifier in enumerate(self._folds):
            rows = own == fold
            if rows.any():
                judged[rows] = torch.from_numpy(classifier.predict(given[rows.numpy()]))
        return judged

    @cached_property
    def _unit(self) -> Tensor:
        return F.normalize(self.vectors, dim=1)

    @cached_property
    def _fold_of(self) -> Tensor:
        # Drawn: classes take turns in a split, so that every fifth image may be of one class.
        drawn = np.random.default_rng(0).permutation(len(self.labels)) % FOLDS
        return torch.from_numpy(drawn)

    @cached_property
    def _whole(self) -> Any:
        return _fit_probe(self.vectors, self.labels)

    @cached_property
    def _folds(self) -> list[Any]:
        others = [self._fold_of != fold for fold in range(FOLDS)]
        return [_fit_probe(self.vectors[rows], self.labels[rows]) for rows in others]


def _fit_probe(vectors: Tensor, labels: Tensor) -> Any:
    """Fit a multinomial regression to standardised features, or one class where there is no more.

    vectors  (N, D)
    labels   (N,)
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if (labels == labels[0]).all():
        return DummyClassifier().fit(vectors.numpy(), labels.numpy())
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        # Features that all images share need no more iterations, and few images of many classes
        # are no regression.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        return probe.fit(vectors.numpy(), labels.numpy())
