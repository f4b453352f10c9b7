"""Accuracy of predictions on a split, with intervals, alone and compared with the baseline's."""

from torch import Tensor

from tokensearch.accuracy.results import ImageResults
from tokensearch.data.splits import Split
from tokensearch.policy import Objective, RightImages
from tokensearch.records.measurements import Accuracy, ChoiceFigures, PairedAccuracy
from tokensearch.stats.bootstrap import bootstrap_mean
from tokensearch.stats.interval import LEVEL, paired_difference
from tokensearch.stats.proportions import mcnemar, wilson


def accuracy(results: ImageResults, split: Split, *, level: float = LEVEL) -> Accuracy:
    """Count correct predictions: by label, or by the baseline's class on an unlabelled split."""
    right = int(_is_right(results.predicted, results, split).sum())
    images = len(results)
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
        kl=float(results.kl.mean()),
        ce=float(results.ce.mean()),
        agreed=int((results.predicted == results.baseline).sum()),
    )


def choice_figures(results: ImageResults, split: Split) -> ChoiceFigures:
    """Return what a policy is chosen by: its right images, and how sure its divergence is."""
    right = _is_right(results.predicted, results, split).tolist()
    bits = sum(1 << index for index, hit in enumerate(right) if hit)
    low, high = bootstrap_mean(results.kl.numpy(), seed=0)
    return ChoiceFigures(RightImages(len(right), bits).hex, low, high)


def paired_accuracy(results: ImageResults, split: Split, *, level: float = LEVEL) -> PairedAccuracy:
    """Compare candidate and baseline image by image.

    On an unlabelled split the baseline is right by definition. The difference is then the share of
    predictions that changed, and cannot be above zero.
    """
    candidate = _is_right(results.predicted, results, split)
    return _compare_right(candidate, _is_right(results.baseline, results, split), level)


def compare_results(
    results: ImageResults, reference: ImageResults, split: Split, *, level: float = LEVEL
) -> PairedAccuracy:
    """Compare two candidates image by image: `reference` takes the baseline's part."""
    candidate, other = (_is_right(one.predicted, one, split) for one in (results, reference))
    return _compare_right(candidate, other, level)


def _compare_right(candidate: Tensor, reference: Tensor, level: float) -> PairedAccuracy:
    """Compare which images are right, both (M,) bool."""
    lost, won = int((reference & ~candidate).sum()), int((candidate & ~reference).sum())
    images = len(candidate)
    low, high = paired_difference(lost, won, images, level=level)
    return PairedAccuracy(
        images=images,
        only_baseline=lost,
        only_candidate=won,
        p_value=mcnemar(lost, won),
        difference=(won - lost) / images,
        low=low,
        high=high,
        level=level,
    )


def per_image(results: ImageResults, split: Split, objective: Objective) -> Tensor:
    """Return what every image adds to the objective, (M,) float64; more is better."""
    match objective:
        case "kl":
            return -results.kl
        case "ce":
            return -results.ce
        case "agreement":
            return (results.predicted == results.baseline).double()
        case "top1":
            return _is_right(results.predicted, results, split).double()


def _is_right(classes: Tensor, results: ImageResults, split: Split) -> Tensor:
    """Whether each class is the label, or the baseline's class on an unlabelled split: (M,)."""
    return classes == (results.labels if split.labelled else results.baseline)
