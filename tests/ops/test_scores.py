import pytest
import torch

from tests.ops import noise
from tokensearch.ops import (
    attention_row,
    class_attention,
    class_attention_value,
    head_weighted_class_attention,
    mean_query,
    random_order,
    representation_shift,
    size_bias,
)


def test_a_token_of_size_two_counts_as_two_equal_keys() -> None:
    query, keys, values = noise(1, 1, 1, 4), noise(1, 1, 3, 4), noise(1, 1, 3, 4, seed=1)
    twice = [0, 1, 1, 2]

    bias = size_bias(torch.tensor([[[1.0], [2.0], [1.0]]], dtype=torch.float64))
    merged = (query @ keys.transpose(-2, -1) + bias).softmax(-1) @ values
    full = (query @ keys[:, :, twice].transpose(-2, -1)).softmax(-1) @ values[:, :, twice]

    torch.testing.assert_close(merged, full)


def test_class_attention_is_the_class_row_of_the_full_matrix() -> None:
    queries, keys = noise(2, 3, 7, 4), noise(2, 3, 7, 4, seed=1)

    score = class_attention(attention_row(queries[:, :, :1], keys), prefix=2)

    full = (queries @ keys.transpose(-2, -1) / 4**0.5).softmax(-1).mean(1)
    torch.testing.assert_close(score, full[:, 0, 2:])


def test_random_order_depends_on_the_seed_alone() -> None:
    cpu = torch.device("cpu")
    orders = {
        tuple(random_order(1, 196, seed=seed, device=cpu)[0].argsort().tolist())
        for seed in range(12)
    }

    assert len(orders) == 12
    assert torch.equal(
        random_order(3, 8, seed=5, device=cpu)[2], random_order(1, 8, seed=5, device=cpu)[0]
    )


@pytest.mark.parametrize("keep", [1, 49, 98])
def test_random_order_favours_no_part_of_the_image(keep: int) -> None:
    kept = torch.zeros(196)
    for seed in range(400):
        kept[random_order(1, 196, seed=seed, device=torch.device("cpu"))[0].argsort()[:keep]] += 1

    # Binomial counts: the quarter sums lie within five standard deviations of their expectation.
    expected = 400 * keep / 4
    assert ((kept.view(4, 49).sum(1) - expected).abs() < 5 * (expected * 0.75) ** 0.5).all()


def row_and(*, images: int = 2, heads: int = 3, prefix: int = 1, patches: int = 5) -> torch.Tensor:
    return noise(images, heads, prefix + patches).softmax(-1)


def test_class_attention_value_is_weighed_by_the_length_of_all_heads_values() -> None:
    row, values = row_and(), noise(2, 3, 6, 4, seed=1)

    score = class_attention_value(row, values, prefix=1)

    for image in range(2):
        length = [values[image, :, t].flatten().norm() for t in range(1, 6)]
        raw = [row[image, :, t].sum() * length[t - 1] for t in range(1, 6)]
        torch.testing.assert_close(score[image], torch.stack(raw) / sum(raw))


def test_head_weights_are_shares_of_the_tokens_own_output() -> None:
    row, outputs = row_and(), noise(2, 3, 6, 4, seed=1)

    score = head_weighted_class_attention(row, outputs, prefix=1)

    length = outputs.norm(dim=-1)
    weight = length / length.sum(1, keepdim=True)
    torch.testing.assert_close(score, (weight * row).sum(1)[:, 1:])


def test_what_fills_an_image_up_has_no_part_in_the_mean_query() -> None:
    queries = noise(2, 3, 7, 4)
    present = (torch.arange(7) < torch.tensor([[7], [5]]))[..., None]

    query = mean_query(queries, prefix=1, present=present)

    alone = mean_query(queries[:1], prefix=1), mean_query(queries[1:, :, :5], prefix=1)
    torch.testing.assert_close(query, torch.cat(alone), rtol=0, atol=1e-15)


def test_shift_is_how_far_each_patch_token_moved() -> None:
    before, after = noise(2, 7, 4), noise(2, 7, 4, seed=1)

    score = representation_shift(before, after, prefix=2)

    raw = torch.tensor(
        [
            [float((after - before)[image, token].norm()) for token in range(2, 7)]
            for image in (0, 1)
        ]
    ).double()
    torch.testing.assert_close(score, raw / raw.sum(1, keepdim=True), rtol=0, atol=1e-6)
