"""What a model answers on a split, and how that compares with the baseline.

A model is any callable from images to logits, so that baseline and candidate go the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tokensearch.data.splits import Split
from tokensearch.errors import MeasurementError
from tokensearch.evaluate.intervals import LEVEL, mcnemar, paired_difference, wilson
from tokensearch.records import Accuracy, Paired

Forward = Callable[[Tensor], Tensor]  # images (B, 3, S, S) -> logits (B, K)
OnBatch = Callable[[int, int], None]  # called with images done, images in all


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's answers to the first M images of a split, in order."""

    log_probs: Tensor  # (M, K) float32, on the CPU
    labels: Tensor  # (M,) int64, -1 where there is none

    @property
    def answers(self) -> Tensor:
        """The most probable class of every image, (M,) int64."""
        return self.log_probs.argmax(dim=1)


@torch.inference_mode()
def predict(
    forward: Forward,
    split: Split,
    *,
    batch: int,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    limit: int | None = None,
    on_batch: OnBatch | None = None,
) -> Predictions:
    """Ask a model about the first `limit` images of a split (all of them by default).

    Args:
        forward: Takes images in `dtype` on `device`, (B, 3, S, S); returns logits, (B, K).
        split: The images.
        batch: Images per pass, B; the last pass may hold fewer.
        device: Where the images go.
        dtype: Of the images; what comes back is turned into float32 before the softmax.
        limit: Images to ask about.
        on_batch: Told of progress after every pass.

    Raises:
        MeasurementError: The output is no (B, K) tensor, or has values that are not finite.
    """
    total = len(split) if limit is None else min(limit, len(split))
    log_probs: list[Tensor] = []
    labels: list[Tensor] = []
    done = 0
    for images, truth in split.batches(batch, limit=limit):
        logits = forward(images.to(device=device, dtype=dtype))
        log_probs.append(_log_probs(logits, split, first=done, images=len(truth)))
        labels.append(truth)
        done += len(truth)
        if on_batch is not None:
            on_batch(done, total)
    return Predictions(torch.cat(log_probs), torch.cat(labels))


def accuracy(
    predictions: Predictions, baseline: Predictions, split: Split, *, level: float = LEVEL
) -> Accuracy:
    """Count right answers: the labels', or, on an unlabelled split, those of the baseline.

    Raises:
        MeasurementError: The two did not see the same images, or know different classes.
    """
    _check_same_images(predictions, baseline)
    right = int(_right(predictions, baseline, split).sum())
    images = len(predictions.labels)
    low, high = wilson(right, images, level=level)
    return Accuracy(
        kind="top1" if split.labelled else "agreement",
        split=split.purpose,
        split_hash=split.digest,
        images=images,
        right=right,
        low=low,
        high=high,
        level=level,
        kl=_kl(baseline.log_probs, predictions.log_probs),
    )


def paired(
    predictions: Predictions, baseline: Predictions, split: Split, *, level: float = LEVEL
) -> Paired:
    """Compare candidate and baseline image by image.

    On an unlabelled split the baseline is right by definition, so the difference is the share of
    answers that changed, and cannot be above zero.

    Raises:
        MeasurementError: The two did not see the same images, or know different classes.
    """
    _check_same_images(predictions, baseline)
    candidate_right = _right(predictions, baseline, split)
    baseline_right = _right(baseline, baseline, split)
    lost = int((baseline_right & ~candidate_right).sum())
    won = int((candidate_right & ~baseline_right).sum())
    images = len(predictions.labels)
    low, high = paired_difference(lost, won, images, level=level)
    return Paired(
        images=images,
        only_baseline=lost,
        only_candidate=won,
        p_value=mcnemar(lost, won),
        difference=(won - lost) / images,
        low=low,
        high=high,
        level=level,
    )


def _log_probs(logits: Tensor, split: Split, *, first: int, images: int) -> Tensor:
    """Return checked log-probabilities, (B, K) float32, on the CPU."""
    if logits.ndim != 2 or len(logits) != images:
        shape = tuple(logits.shape)
        raise MeasurementError(
            f"the model returned {shape} for {images} images, not one row of logits each"
        )
    log_probs = F.log_softmax(logits.float(), dim=1).cpu()
    strange = (~log_probs.isfinite()).any(dim=1).nonzero()
    if len(strange):
        raise MeasurementError(
            f"the model's logits are not finite for image {first + int(strange[0])} of the "
            f"{split.purpose} split, counted from 0"
        )
    return log_probs


def _right(predictions: Predictions, baseline: Predictions, split: Split) -> Tensor:
    truth = predictions.labels if split.labelled else baseline.answers
    return predictions.answers == truth


def _kl(baseline: Tensor, candidate: Tensor) -> float:
    """Return the mean KL divergence of the candidate from the baseline, in nats."""
    # In double precision, and not below the zero that only rounding can cross.
    mean = F.kl_div(candidate.double(), baseline.double(), reduction="batchmean", log_target=True)
    return max(0.0, float(mean))


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
