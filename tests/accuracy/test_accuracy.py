import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tokensearch.accuracy.accuracy import accuracy, choice_figures, paired_accuracy
from tokensearch.accuracy.results import Predictions, compare_predictions, predict_images
from tokensearch.data.splits import Split
from tokensearch.errors import MeasurementError
from tokensearch.policy import EMBEDDING_OBJECTIVES, OBJECTIVES
from tokensearch.stats.interval import paired_difference
from tokensearch.stats.proportions import mcnemar, wilson


class Counting:
    """Image `i` holds the value i everywhere; its label is i modulo 3, or -1."""

    def __init__(self, count: int, *, labelled: bool = True) -> None:
        self.count, self.labelled = count, labelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 4, 4), float(index)), index % 3 if self.labelled else -1


def split_of(count: int, *, labelled: bool = True) -> Split:
    return Split("select", Counting(count, labelled=labelled), "sha256:abc", labelled=labelled)


def knows_all(images: Tensor) -> Tensor:
    """Predict the label that `Counting` gives."""
    return 5.0 * torch.nn.functional.one_hot(images[:, 0, 0, 0].long() % 3, 3)


def says_zero(images: Tensor) -> Tensor:
    return torch.tensor([2.0, 1.0, 0.0]).expand(len(images), 3)


def predict(forward: Callable[[Tensor], Tensor], split: Split) -> Predictions:
    images, labels = split.part(0, len(split))
    return predict_images(forward(images), labels, split, first=0)


def predicting(classes: Sequence[int], labels: Sequence[int]) -> Predictions:
    logits = 3.0 * torch.nn.functional.one_hot(torch.tensor(classes), 3)
    return Predictions(logits.log_softmax(1), torch.tensor(labels))


def test_predictions_are_log_probabilities_in_order() -> None:
    predictions = predict(knows_all, split_of(10))

    assert predictions.predicted.tolist() == [i % 3 for i in range(10)]
    assert predictions.labels.tolist() == [i % 3 for i in range(10)]
    assert torch.allclose(predictions.log_probs.exp().sum(1), torch.ones(10))
    assert predictions.log_probs.dtype == torch.float32


def test_logits_that_are_not_finite_name_the_image() -> None:
    split = split_of(10)
    logits = torch.zeros(4, 3)
    logits[2] = math.nan

    with pytest.raises(MeasurementError) as caught:
        predict_images(logits, torch.zeros(4, dtype=torch.int64), split, first=4)

    assert str(caught.value) == (
        "the model's logits are not finite for image 6 of the select split, counted from 0"
    )


def test_features_instead_of_logits_are_refused() -> None:
    with pytest.raises(MeasurementError) as caught:
        predict(lambda images: images, split_of(4))

    assert str(caught.value) == (
        "the model returned (4, 3, 4, 4) for 4 images, not one row of logits each"
    )


def test_correct_predictions_are_counted_against_labels() -> None:
    split = split_of(10)
    all_right, one_third = predict(knows_all, split), predict(says_zero, split)

    result = accuracy(compare_predictions(one_third, all_right), split)

    assert (result.kind, result.right, result.images) == ("top1", 4, 10)
    assert (result.low, result.high) == wilson(4, 10)
    assert (result.split, result.split_hash, result.level) == ("select", "sha256:abc", 0.95)


def test_without_labels_the_baseline_is_right() -> None:
    split = split_of(10, labelled=False)
    baseline, candidate = predict(knows_all, split), predict(says_zero, split)

    result = accuracy(compare_predictions(candidate, baseline), split)

    assert (result.kind, result.right) == ("agreement", 4)
    assert accuracy(compare_predictions(baseline, baseline), split).top1 == 1.0


def test_divergence_is_from_the_baseline_in_nats() -> None:
    split = split_of(1)
    half = Predictions(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0]))
    sure = Predictions(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]))

    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    found = compare_predictions(sure, half)
    assert accuracy(found, split).kl == pytest.approx(expected, rel=1e-6)
    assert accuracy(found, split).ce == pytest.approx(-math.log(0.9), rel=1e-6)
    assert accuracy(compare_predictions(half, half), split).kl == 0.0


def test_pairs_are_compared_image_by_image() -> None:
    labels = [0, 0, 0, 0, 1, 1]
    baseline = predicting([0, 0, 0, 2, 2, 2], labels)  # right, right, right, wrong, wrong, wrong
    candidate = predicting([0, 1, 2, 0, 2, 0], labels)  # right, wrong, wrong, right, wrong, wrong

    result = paired_accuracy(compare_predictions(candidate, baseline), split_of(6))

    assert (result.images, result.only_baseline, result.only_candidate) == (6, 2, 1)
    assert result.difference == pytest.approx(-1 / 6)
    assert result.p_value == mcnemar(2, 1)
    assert (result.low, result.high) == paired_difference(2, 1, 6)


def test_without_labels_a_candidate_can_only_lose() -> None:
    labels = [-1] * 4
    baseline, candidate = predicting([0, 1, 2, 0], labels), predicting([0, 2, 2, 1], labels)

    result = paired_accuracy(compare_predictions(candidate, baseline), split_of(4, labelled=False))

    assert (result.only_baseline, result.only_candidate) == (2, 0)


def test_different_images_cannot_be_compared() -> None:
    few, many = predicting([0, 1], [0, 1]), predicting([0, 1, 2], [0, 1, 2])

    with pytest.raises(MeasurementError) as caught:
        compare_predictions(few, many)

    assert str(caught.value) == "candidate and baseline did not see the same images: 2 against 3"


def test_different_classes_cannot_be_compared() -> None:
    three = predicting([0, 1], [0, 1])
    two = Predictions(torch.zeros(2, 2), torch.tensor([0, 1]))

    with pytest.raises(MeasurementError) as caught:
        compare_predictions(two, three)

    assert str(caught.value) == "candidate and baseline know different classes: 2 against 3"


def test_every_objective_is_the_mean_of_what_images_add() -> None:
    split = split_of(6)
    labels = [0, 0, 0, 0, 1, 1]
    found = compare_predictions(
        predicting([0, 1, 2, 0, 2, 0], labels), predicting([0, 0, 0, 2, 2, 2], labels)
    )
    result = accuracy(found, split)

    means = {
        name: float(found.per_image(split, name).mean())
        for name in OBJECTIVES
        if name not in EMBEDDING_OBJECTIVES
    }

    assert means == pytest.approx(
        {"top1": result.top1, "agreement": 2 / 6, "kl": -result.kl, "ce": -result.ce}
    )
    assert result.agreed == 2


def test_without_labels_cross_entropy_is_with_the_class_of_the_baseline() -> None:
    baseline, candidate = predicting([2], [-1]), predicting([2], [-1])

    found = compare_predictions(candidate, baseline)

    assert float(found.ce) == pytest.approx(-float(candidate.log_probs[0, 2]))


def test_a_single_logit_is_that_of_the_second_of_two_classes() -> None:
    logits, labels = torch.tensor([[-2.0], [0.5], [3.0]]), torch.tensor([0, 0, 1])
    made = predict_images(logits, labels, split_of(3), first=0)

    torch.testing.assert_close(made.log_probs[:, 1:], logits.sigmoid().log())
    assert made.predicted.tolist() == [0, 1, 1]


def test_images_that_show_the_same_thing_widen_intervals_and_change_no_figure() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    baseline = predicting([0, 0, 0, 0, 1, 1, 1, 1], labels)
    candidate = predicting([0, 0, 0, 0, 1, 1, 2, 2], labels)  # the same digit is wrong twice
    alone = split_of(8)
    grouped = replace(alone, groups=(0, 0, 1, 1, 2, 2, 3, 3))
    results = compare_predictions(candidate, baseline)

    single, several = accuracy(results, alone), accuracy(results, grouped)
    assert (several.right, several.images) == (single.right, single.images) == (6, 8)
    assert (several.low, several.high) == wilson(3, 4)
    change = paired_accuracy(results, grouped)
    assert (change.difference, change.only_baseline) == (-0.25, 2)
    assert (change.low, change.high) == paired_difference(1, 0, 4)
    assert change.p_value == mcnemar(1, 0)
    narrow, wide = choice_figures(results, alone), choice_figures(results, grouped)
    assert wide.divergence[1] > narrow.divergence[1]
    assert (wide.right, wide.groups, narrow.groups) == (narrow.right, "00112233", None)


def test_images_that_are_right_together_widen_the_interval_of_accuracy_alone() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    baseline = predicting([0, 0, 0, 0, 1, 1, 1, 1], labels)
    results = compare_predictions(predicting([0, 0, 0, 0, 1, 1, 2, 2], labels), baseline)
    alone = split_of(8)
    related = replace(alone, correlation=1 / 7)

    single, several = accuracy(results, alone), accuracy(results, related)

    assert (several.right, several.images) == (single.right, single.images) == (6, 8)
    assert (several.low, several.high) == wilson(3, 4)
    assert paired_accuracy(results, related) == paired_accuracy(results, alone)
