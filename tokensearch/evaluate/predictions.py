"""What a model predicts for images, checked; whatever the model is."""

from dataclasses import dataclass

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


def predicted(logits: Tensor, labels: Tensor, split: Split, *, first: int) -> Predictions:
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
