"""What a model says of every image, and how it compares with the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.data.splits import Split
from tokensearch.errors import MeasurementError


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's predictions for M images, in order."""

    log_probs: Tensor  # (M, K) float32, on the CPU
    labels: Tensor  # (M,) int64, -1 where there is none

    @property
    def answers(self) -> Tensor:
        """The most probable class of every image, (M,) int64."""
        return self.log_probs.argmax(dim=1)


def predict_images(logits: Tensor, labels: Tensor, split: Split, *, first: int) -> Predictions:
    """Return what `logits` say of the images of a split from number `first` on.

    logits  (M, K), in any number type, turned into float32 before the softmax
    labels  (M,)

    Raises:
        MeasurementError: The logits are no (M, K) tensor, or have values that are not finite.
    """
    if logits.ndim != 2 or len(logits) != len(labels):
        shape = tuple(logits.shape)
        raise MeasurementError(
            f"the model returned {shape} for {len(labels)} images, not one row of logits each"
        )
    log_probs = F.log_softmax(logits.float(), dim=1).cpu()
    strange = (~log_probs.isfinite()).any(dim=1).nonzero()
    if len(strange):
        raise MeasurementError(
            f"the model's logits are not finite for image {first + int(strange[0])} of the "
            f"{split.purpose} split, counted from 0"
        )
    return Predictions(log_probs, labels)


@dataclass(frozen=True, slots=True)
class ImageResults:
    """What is known of every image; all that accuracy, pairing and objectives are made of."""

    labels: Tensor  # (M,) int64, -1 where there is none
    baseline: Tensor  # (M,) int64, the baseline's answers
    answers: Tensor  # (M,) int64
    kl: Tensor  # (M,) float64, divergence from the baseline's prediction, nats
    ce: Tensor  # (M,) float64, of the label, or of the baseline's answer without one

    def __len__(self) -> int:
        return len(self.answers)

    def first(self, images: int) -> "ImageResults":
        """Return those to the first `images`."""
        return ImageResults(*(getattr(self, item.name)[:images] for item in fields(self)))


def compare_predictions(predictions: Predictions, baseline: Predictions) -> ImageResults:
    """Hold a model's predictions against those of the baseline, image by image.

    Raises:
        MeasurementError: The two did not see the same images, or know different classes.
    """
    _check_same_images(predictions, baseline)
    # In double precision, and not below the zero that only rounding can cross.
    log_probs, whole = predictions.log_probs.double(), baseline.log_probs.double()
    kl = F.kl_div(log_probs, whole, reduction="none", log_target=True).sum(dim=1).clamp(min=0)
    truth = torch.where(predictions.labels >= 0, predictions.labels, baseline.answers)
    return ImageResults(
        labels=predictions.labels,
        baseline=baseline.answers,
        answers=predictions.answers,
        kl=kl,
        ce=F.nll_loss(log_probs, truth, reduction="none"),
    )


def join_results(parts: Sequence[ImageResults]) -> ImageResults:
    """Return the answers to the images of all parts, in order."""
    return ImageResults(
        *(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(ImageResults))
    )


def _check_same_images(predictions: Predictions, baseline: Predictions) -> None:
    if not torch.equal(predictions.labels, baseline.labels):
        raise MeasurementError(
            f"candidate and baseline did not see the same images: "
            f"{len(predictions.labels)} against {len(baseline.labels)}"
        )
    classes, known = predictions.log_probs.shape[1], baseline.log_probs.shape[1]
    if classes != known:
        raise MeasurementError(
            f"candidate and baseline know different classes: {classes} against {known}"
        )
