"""How right answers are, with intervals, and how that compares with the baseline."""

from torch import Tensor

from tokensearch.accuracy.results import ImageResults
from tokensearch.data.splits import Split
from tokensearch.policy import Objective
from tokensearch.records.measurements import Accuracy, PairedAccuracy
from tokensearch.stats.proportions import LEVEL, mcnemar, paired_difference, wilson


def accuracy(found: ImageResults, split: Split, *, level: float = LEVEL) -> Accuracy:
    """Count right answers: the labels', or, on an unlabelled split, those of the baseline."""
    right = int(_right(found.answers, found, split).sum())
    images = len(found)
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
        kl=float(found.kl.mean()),
        ce=float(found.ce.mean()),
        agreed=int((found.answers == found.baseline).sum()),
    )


def paired_accuracy(found: ImageResults, split: Split, *, level: float = LEVEL) -> PairedAccuracy:
    """Compare candidate and baseline image by image.

    On an unlabelled split the baseline is right by definition, so the difference is the share of
    answers that changed, and cannot be above zero.
    """
    mine, theirs = (_right(answers, found, split) for answers in (found.answers, found.baseline))
    return _against(mine, theirs, level)


def compare_results(
    found: ImageResults, other: ImageResults, split: Split, *, level: float = LEVEL
) -> PairedAccuracy:
    """Compare two candidates image by image: the second stands where the baseline does."""
    mine, theirs = (_right(one.answers, one, split) for one in (found, other))
    return _against(mine, theirs, level)


def _against(mine: Tensor, theirs: Tensor, level: float) -> PairedAccuracy:
    lost, won = int((theirs & ~mine).sum()), int((mine & ~theirs).sum())
    images = len(mine)
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


def per_image(found: ImageResults, split: Split, objective: Objective) -> Tensor:
    """Return what every image adds to the worth of a policy, (M,) float64; more is better."""
    match objective:
        case "kl":
            return -found.kl
        case "ce":
            return -found.ce
        case "agreement":
            return (found.answers == found.baseline).double()
        case "top1":
            return _right(found.answers, found, split).double()


def _right(answers: Tensor, found: ImageResults, split: Split) -> Tensor:
    return answers == (found.labels if split.labelled else found.baseline)
