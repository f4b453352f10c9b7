"""What a model made of images, one by one, beside the labels and the un-reduced model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.errors import MeasurementError
from tokensearch.evaluate.predictions import Predictions


@dataclass(frozen=True, slots=True)
class Answers:
    """What is known of every image; all that accuracy, pairing and objectives are made of."""

    labels: Tensor  # (M,) int64, -1 where there is none
    baseline: Tensor  # (M,) int64, the un-reduced model's answers
    answers: Tensor  # (M,) int64
    kl: Tensor  # (M,) float64, divergence from the un-reduced model's prediction, nats
    ce: Tensor  # (M,) float64, of the label, or of the un-reduced model's answer without one

    def __len__(self) -> int:
        return len(self.answers)

    def first(self, images: int) -> "Answers":
        """Return those to the first `images`."""
        return Answers(*(getattr(self, item.name)[:images] for item in fields(self)))


def held_against(predictions: Predictions, baseline: Predictions) -> Answers:
    """Hold a model's predictions against those of the un-reduced model, image by image.

    Raises:
        MeasurementError: The two did not see the same images, or know different classes.
    """
    _check_same_images(predictions, baseline)
    # In double precision, and not below the zero that only rounding can cross.
    log_probs, whole = predictions.log_probs.double(), baseline.log_probs.double()
    kl = F.kl_div(log_probs, whole, reduction="none", log_target=True).sum(dim=1).clamp(min=0)
    truth = torch.where(predictions.labels >= 0, predictions.labels, baseline.answers)
    return Answers(
        labels=predictions.labels,
        baseline=baseline.answers,
        answers=predictions.answers,
        kl=kl,
        ce=F.nll_loss(log_probs, truth, reduction="none"),
    )


def joined(parts: Sequence[Answers]) -> Answers:
    """Return the answers to the images of all parts, in order."""
    return Answers(
        *(torch.cat([getattr(part, item.name) for part in parts]) for item in fields(Answers))
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
