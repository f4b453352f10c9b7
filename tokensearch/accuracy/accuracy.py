"""Accuracy of predictions or embeddings on a split, alone and compared with the baseline's."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokensearch.accuracy.embeddings import EmbeddingResults
from tokensearch.accuracy.readouts import UNKNOWN_CLASS
from tokensearch.accuracy.results import ImageResults
from tokensearch.data.splits import Split
from tokensearch.policy import RightImages
from tokensearch.records.embedding import EmbeddingAccuracy
from tokensearch.records.measurements import (
    Accuracy,
    PairedAccuracy,
    Score,
)
from tokensearch.records.run_result import AnyChoice, ChoiceFigures, EmbeddingChoice
from tokensearch.stats.bootstrap import bootstrap_mean
from tokensearch.stats.interval import LEVEL, design_effect, paired_difference
from tokensearch.stats.proportions import mcnemar, wilson

Results = ImageResults | EmbeddingResults
_Some = TypeVar("_Some", bound=Results)


def take_results(results: _Some, images: int) -> _Some:
    """Return the results of the first `images`."""
    return replace(results, **{name: own[:images] for name, own in _tensors(results).items()})


def join_results(parts: Sequence[_Some]) -> _Some:
    """Join the results of all parts, in order."""
    tensors = [_tensors(part) for part in parts]
    joined: dict[str, Any] = {
        name: torch.cat([own[name] for own in tensors]) for name in tensors[0]
    }
    return replace(parts[0], **joined)


def _tensors(results: Any) -> dict[str, Any]:
    """Return what a record holds for every image, by name."""
    values = {item.name: getattr(results, item.name) for item in fields(results)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def accuracy(results: Results, split: Split, *, level: float = LEVEL) -> Score:
    """Count right images: predictions by label, or by the baseline's class; or embeddings."""
    hits, images = results.right(split), len(results)
    right, effect = int(hits.sum()), _design_effect(hits, split)
    effect *= 1 + split.correlation * (images - 1)  # of accuracies alone: changes do not feel it
    low, high = wilson(right / effect, images / effect, level=level)
    if isinstance(results, EmbeddingResults):
        return EmbeddingAccuracy(
            kind="dense" if results.dense else "embedding",
            right_by=results.right_by,
            split=split.purpose,
            split_hash=split.digest,
            images=images,
            cosine=float(results.cosine.mean()),
            right=right,
            low=low,
            high=high,
            level=level,
            recall_at_1=float(results.nearest_kept.double().mean()),
            recall_at_10=float(results.nearest_ten_kept.mean()),
            knn=_share_right(results.knn, results.labels),
            probe=_share_right(results.probe, results.labels),
        )
    return Accuracy(
        kind="top1" if split.labelled else "agreement",
        split=split.purpose,
        split_hash=split.digest,
        images=images,
        right=right,
        low=low,
        high=high,
        level=level,
        kl=float(results.kl.mean()),
        ce=float(results.ce.mean()),
        agreed=int((results.predicted == results.baseline).sum()),
    )


def _design_effect(values: Tensor, split: Split) -> float:
    """Return how much more a mean of the first images varies since some show the same."""
    if split.groups is None:
        return 1.0
    return design_effect(values.tolist(), split.groups[: len(values)])


def _share_right(classes: Tensor, labels: Tensor) -> float | None:
    """Return the share of right classes; None where none were read."""
    if (classes == UNKNOWN_CLASS).all():
        return None
    return float((classes == labels).double().mean())


def choice_figures(results: Results, split: Split) -> AnyChoice:
    """Return what a policy is chosen by: its right images, and how sure its divergence is."""
    right = results.right(split).tolist()
    bits = sum(1 << index for index, hit in enumerate(right) if hit)
    groups = None if split.groups is None else split.groups[: len(results)]
    low, high = bootstrap_mean(results.divergence.numpy(), seed=0, groups=groups)
    images = RightImages(len(right), bits, groups)
    if isinstance(results, EmbeddingResults):
        return EmbeddingChoice(images.hex, 1.0 - high, 1.0 - low, images.groups_hex)
    return ChoiceFigures(images.hex, low, high, images.groups_hex)


def paired_accuracy(results: Results, split: Split, *, level: float = LEVEL) -> PairedAccuracy:
    """Compare candidate and baseline image by image.

    On an unlabelled split the baseline is right by definition. The difference is then the share of
    predictions, or of nearest neighbours, that changed, and cannot be above zero.
    """
    return _compare_right(results.right(split), results.baseline_right(split), split, level)


def compare_results(
    results: Results, reference: Results, split: Split, *, level: float = LEVEL
) -> PairedAccuracy:
    """Compare two candidates image by image: `reference` takes the baseline's part."""
    return _compare_right(results.right(split), reference.right(split), split, level)


def _compare_right(
    candidate: Tensor, reference: Tensor, split: Split, level: float
) -> PairedAccuracy:
    """Compare which images are right, both (M,) bool: the first of the split."""
    lost, won = int((reference & ~candidate).sum()), int((candidate & ~reference).sum())
    images = len(candidate)
    effect = _design_effect(candidate.int() - reference.int(), split)
    low, high = paired_difference(lost / effect, won / effect, images / effect, level=level)
    return PairedAccuracy(
        images=images,
        only_baseline=lost,
        only_candidate=won,
        p_value=mcnemar(round(lost / effect), round(won / effect)),
        difference=(won - lost) / images,
        low=low,
        high=high,
        level=level,
    )
