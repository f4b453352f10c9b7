"""Embeddings beside the baseline's: cosine, neighbours, and classes read from them."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.accuracy.test_accuracy import split_of
from tokensearch.accuracy.accuracy import (
    accuracy,
    choice_figures,
    join_results,
    paired_accuracy,
    take_results,
)
from tokensearch.accuracy.embeddings import (
    EmbeddingResults,
    Embeddings,
    compare_embeddings,
    embed_images,
    nearest,
)
from tokensearch.accuracy.readouts import Readouts
from tokensearch.errors import MeasurementError
from tokensearch.policy import RightImages, objective_value
from tokensearch.records.embedding import EmbeddingAccuracy
from tokensearch.records.measurements import Trial, from_json, to_json


def drawn(images: int, seed: int = 0, width: int = 8) -> Tensor:
    return torch.randn(images, width, generator=torch.Generator().manual_seed(seed))


def embedded(vectors: Tensor, labels: Tensor | None = None) -> Embeddings:
    unknown = torch.full((len(vectors),), -1)
    return Embeddings(vectors, None, unknown if labels is None else labels)


def compared(noise: float, images: int = 40) -> EmbeddingResults:
    before = drawn(images)
    after = before + noise * drawn(images, seed=1)
    return compare_embeddings(embedded(after), embedded(before), right_by="recall")


def scored(results: EmbeddingResults, *, labelled: bool = False) -> EmbeddingAccuracy:
    score = accuracy(results, split_of(len(results), labelled=labelled))
    assert isinstance(score, EmbeddingAccuracy)
    return score


def test_the_baseline_is_as_close_to_itself_as_can_be() -> None:
    score = scored(compared(0.0))

    assert (score.cosine, score.recall_at_1, score.recall_at_10, score.share) == (1, 1, 1, 1)
    assert objective_value(to_json(score), "cosine") == 0.0


def test_recall_is_what_a_look_at_every_pair_says() -> None:
    results = compared(0.7)
    same, kept = 0, 0.0
    for index in range(40):
        ranks = []
        for vectors in (results.vectors.double(), results.baseline.double()):
            similarity = F.cosine_similarity(vectors[index : index + 1], vectors)
            similarity[index] = -2
            ranks.append(similarity.argsort(descending=True)[:10].tolist())
        same += ranks[0][0] == ranks[1][0]
        kept += len(set(ranks[0]) & set(ranks[1])) / 10

    score = scored(results)

    assert 0 < same < 40
    assert (score.right, score.recall_at_1) == (same, same / 40)
    assert score.recall_at_10 == pytest.approx(kept / 40)


def test_the_cosine_is_the_mean_over_images() -> None:
    results = compared(0.3)
    expected = F.cosine_similarity(results.vectors.double(), results.baseline.double()).mean()

    assert scored(results).cosine == pytest.approx(float(expected), rel=1e-12)


def test_a_neighbour_is_never_the_image_itself() -> None:
    twins = drawn(4).repeat(2, 1)

    assert nearest(twins, 1)[:, 0].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]


def test_one_image_has_no_neighbour_to_lose() -> None:
    score = scored(compared(0.5, images=1))

    assert (score.recall_at_1, score.recall_at_10) == (1, 1)


def test_results_in_parts_are_those_of_the_whole() -> None:
    whole, before = compared(0.5), drawn(40)
    after = whole.vectors
    parts = [
        compare_embeddings(embedded(after[rows]), embedded(before[rows]), right_by="recall")
        for rows in (slice(0, 32), slice(32, 40))
    ]

    assert scored(join_results(parts)) == scored(whole)
    assert torch.equal(take_results(whole, 32).cosine, parts[0].cosine)


def test_changed_neighbours_are_what_the_baseline_alone_has_right() -> None:
    results = compared(0.7)

    paired = paired_accuracy(results, split_of(40, labelled=False))

    assert (paired.only_baseline, paired.only_candidate) == (40 - scored(results).right, 0)


def test_a_choice_holds_the_right_images_and_the_interval_of_the_cosine() -> None:
    results = compared(0.7)

    choice = choice_figures(results, split_of(40, labelled=False))

    assert RightImages.from_hex(40, choice.right).bits.bit_count() == scored(results).right
    assert 1 - choice.divergence[1] < scored(results).cosine < 1 - choice.divergence[0]


def test_dense_outputs_are_compared_patch_by_patch_without_prefix_tokens() -> None:
    split, labels = split_of(6, labelled=False), torch.full((6,), -1)
    before = drawn(6 * 5).reshape(6, 5, 8)
    after = before.clone()
    after[:, 0] = -before[:, 0]  # the prefix token
    after[:, 4] = -before[:, 4]  # one patch of four

    own, baseline = (
        embed_images(output, labels, split, first=0, prefix_tokens=1) for output in (after, before)
    )
    score = scored(compare_embeddings(own, baseline, right_by="recall"))

    assert score.kind == "dense"
    assert score.cosine == pytest.approx(0.5, abs=1e-6)


def test_what_is_not_finite_or_no_embedding_is_refused() -> None:
    split, labels = split_of(2, labelled=False), torch.full((2,), -1)
    broken = torch.tensor([[1.0], [torch.nan]])
    with pytest.raises(MeasurementError, match="not finite for image 9 of the"):
        embed_images(broken, labels, split, first=8, prefix_tokens=0)
    with pytest.raises(MeasurementError, match=r"returned \(2, 3, 4, 4\) for 2 images"):
        embed_images(torch.zeros(2, 3, 4, 4), labels, split, first=0, prefix_tokens=0)
    with pytest.raises(MeasurementError, match=r"different shapes: \(8,\) against \(4,\)"):
        compare_embeddings(embedded(drawn(3)), embedded(drawn(3, width=4)), right_by="recall")


def clouds(images: int, seed: int, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    """Embeddings of four classes, each around a corner."""
    labels = torch.arange(images) % 4
    return F.one_hot(labels, 8).float() + spread * drawn(images, seed), labels


def test_readouts_tell_classes_that_lie_apart() -> None:
    readouts, (vectors, labels) = Readouts(*clouds(80, 0)), clouds(40, 1)

    for by in (readouts.knn, readouts.probe):
        assert (by(vectors) == labels).float().mean() > 0.9


def test_few_images_of_many_classes_are_told_apart_without_a_warning() -> None:
    vectors, labels = clouds(7, 0, spread=0.05)  # scikit-learn takes four classes for a regression

    assert Readouts(vectors, labels).probe(vectors).tolist() == labels.tolist()


def test_no_image_of_search_is_told_its_own_label() -> None:
    vectors, _ = clouds(80, 0)
    meaningless = torch.randint(0, 4, (80,), generator=torch.Generator().manual_seed(3))
    readouts = Readouts(vectors, meaningless)

    for by in (readouts.knn, readouts.probe):
        assert (by(vectors, range(80)) == meaningless).float().mean() < 0.5


def test_classes_are_judged_by_readouts_of_the_baseline() -> None:
    gallery, (before, labels) = Readouts(*clouds(80, 0)), clouds(40, 1)
    after = before.roll(1, dims=1)  # every class in the place of another
    own, baseline = embedded(after, labels), embedded(before, labels)

    results = compare_embeddings(own, baseline, right_by="probe", readouts=gallery)
    score = scored(results, labelled=True)

    assert score.probe is not None
    assert score.probe == score.share < 0.2
    paired = paired_accuracy(results, split_of(40))
    assert paired.only_baseline > 30


def test_a_trial_of_embeddings_is_read_back_as_it_was_written() -> None:
    score = scored(compared(0.4))
    trial = Trial(0, "seed", "abc", "complete", 0.5, None, score, 1.0, {})

    written = to_json(trial)

    assert from_json(Trial, written) == trial
    assert not {"top1", "agreed", "kl", "ce"} & written["accuracy"].keys()
