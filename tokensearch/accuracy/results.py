"""Predictions of a model for every image, and their comparison with the baseline's."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.data.splits import Split
from tokensearch.errors import MeasurementError
from tokensearch.policy import Objective


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's predictions for M images, in order."""

    log_probs: Tensor  # (M, K) float32, on the CPU
    labels: Tensor  # (M,) int64, -1 where there is none

    @property
    def predicted(self) -> Tensor:
        """The most probable class of every image, (M,) int64."""
        return self.log_probs.argmax(dim=1)


def predict_images(logits: Tensor, labels: Tensor, split: Split, *, first: int) -> Predictions:
    """Turn logits into predictions for the images of a split from number `first` on.

    logits  (M, K), in any number type, turned into float32 before the softmax; with a K of 1, that
            of the second of two classes by its sigmoid, which is a softmax over (0, logit)
    labels  (M,)

    Raises:
        MeasurementError: The logits are not an (M, K) tensor, or not all finite.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        shape = tuple(logits.shape)
        raise MeasurementError(
            f"the model returned {shape} for {len(labels)} images, not one row of logits each"
        )
    logits = logits.float()
    if logits.shape[1] == 1:
        logits = F.pad(logits, (1, 0))
    log_probs = F.log_softmax(logits, dim=1).cpu()
    not_finite = (~log_probs.isfinite()).any(dim=1).nonzero()
    if len(not_finite):
        raise MeasurementError(
            f"the model's logits are not finite for image {first + int(not_finite[0])} of the "
            f"{split.purpose} split, counted from 0"
        )
    return Predictions(log_probs, labels)


@dataclass(frozen=True, slots=True)
class ImageResults:
    """Results of every image: all that accuracy, paired comparison and objectives need."""

    labels: Tensor  # (M,) int64, -1 where there is none
    baseline: Tensor  # (M,) int64, the class that the baseline predicts
    predicted: Tensor  # (M,) int64, the class that the model predicts
    kl: Tensor  # (M,) float64, divergence from the baseline's prediction, nats
    ce: Tensor  # (M,) float64, of the label, or of the baseline's class without one

    def __len__(self) -> int:
        return len(self.predicted)

    @property
    def divergence(self) -> Tensor:
        """Distance from the baseline's prediction, nats: (M,) float64."""
        return self.kl

    def right(self, split: Split) -> Tensor:
        """Whether the prediction is right, by label or else as the baseline's: (M,) bool."""
        return self.predicted == self._truth(split)

    def baseline_right(self, split: Split) -> Tensor:
        """Whether the baseline's prediction is right: (M,) bool. Without labels it always is."""
        return self.baseline == self._truth(split)

    def per_image(self, split: Split, objective: Objective) -> Tensor:
        """Return what every image adds to the objective, (M,) float64; more is better."""
        match objective:
            case "kl":
                return -self.kl
            case "ce":
                return -self.ce
            case "agreement":
                return (self.predicted == self.baseline).double()
            case _:
                return self.right(split).double()

    def _truth(self, split: Split) -> Tensor:
        return self.labels if split.labelled else self.baseline


def compare_predictions(predictions: Predictions, baseline: Predictions) -> ImageResults:
    """Compare a model's predictions with the baseline's, image by image.

    Raises:
        MeasurementError: The two saw different images, or predict different classes.
    """
    _check_same_images(predictions, baseline)
    # In double precision, and not below the zero that only rounding can cross.
    log_probs, reference = predictions.log_probs.double(), baseline.log_probs.double()
    kl = F.kl_div(log_probs, reference, reduction="none", log_target=True).sum(dim=1).clamp(min=0)
    truth = torch.where(predictions.labels >= 0, predictions.labels, baseline.predicted)
    return ImageResults(
        labels=predictions.labels,
        baseline=baseline.predicted,
        predicted=predictions.predicted,
        kl=kl,
        ce=F.nll_loss(log_probs, truth, reduction="none"),
    )


def _check_same_images(predictions: Predictions, baseline: Predictions) -> None:
    if not torch.equal(predictions.labels, baseline.labels):
        raise MeasurementError(
            f"candidate and baseline did not see the same images: "
            f"{len(predictions.labels)} against {len(baseline.labels)}"
        )
    classes, expected = predictions.log_probs.shape[1], baseline.log_probs.shape[1]
    if classes != expected:
        raise MeasurementError(
            f"candidate and baseline know different classes: {classes} against {expected}"
        )
