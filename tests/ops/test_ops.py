import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokensearch.ops import (
    Tokens,
    attention_row,
    class_attention,
    match_bipartite,
    merge,
    pick,
    random_order,
    rank,
    size_bias,
    take,
)


def sequence(images: int = 2, prefix: int = 1, patches: int = 6) -> Tokens:
    """Features that name their own place: token t of image b holds 100 b + t."""
    place = torch.arange(prefix + patches) + 100 * torch.arange(images)[:, None]
    return Tokens(place[..., None].double())


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rows_are_taken_per_image() -> None:
    rows = take(sequence().x, torch.tensor([[0, 3], [6, 1]]))

    assert rows.flatten().tolist() == [0, 3, 106, 101]


def test_survivors_stay_in_order() -> None:
    score = torch.tensor([[0.1, 0.9, 0.2, 0.8, 0.3, 0.7]])

    pruned = pick(sequence(images=1), rank(score, keep=3, prefix=1).kept, prefix=1)

    assert pruned.x.flatten().tolist() == [0, 2, 4, 6]


def test_of_equal_scores_the_earlier_token_survives() -> None:
    assert rank(torch.zeros(1, 6), keep=2, prefix=1).kept.tolist() == [[0, 1, 2]]


@given(keep=st.integers(1, 6), prefix=st.integers(0, 5), seed=st.integers(0, 99))
def test_prefix_tokens_survive_every_prune(keep: int, prefix: int, seed: int) -> None:
    tokens = sequence(prefix=prefix)

    ranking = rank(noise(2, 6, seed=seed), keep=keep, prefix=prefix)
    pruned = pick(tokens, ranking.kept, prefix=prefix)

    assert pruned.x.shape == (2, prefix + keep, 1)
    assert torch.equal(pruned.x[:, :prefix], tokens.x[:, :prefix])


def naive_merge(
    x: torch.Tensor, metric: torch.Tensor, *, removed: int, prefix: int
) -> list[list[float]]:
    """ToMe's matching for one image, token by token, on feature lists with sizes of one."""
    unit = metric / metric.norm(dim=-1, keepdim=True)
    places = range(prefix, len(x))
    a, b = [t for t in places if t % 2 == 0], [t for t in places if t % 2]
    edges = {t: max((float(unit[t] @ unit[u]), -u) for u in b) for t in a}
    leaving = sorted(a, key=lambda t: (-edges[t][0], t))[:removed]
    merged = {u: [u] for u in b}
    for t in leaving:
        merged[-edges[t][1]].append(t)
    kept = [*range(prefix), *(t for t in a if t not in leaving)]
    return [x[t].tolist() for t in kept] + [x[merged[u]].mean(0).tolist() for u in b]


@given(prefix=st.integers(0, 5), patches=st.integers(2, 9), seed=st.integers(0, 99), data=st.data())
def test_merging_equals_the_naive_definition(
    prefix: int, patches: int, seed: int, data: st.DataObject
) -> None:
    removed = data.draw(st.integers(0, patches // 2))
    x, metric = (
        noise(1, prefix + patches, 3, seed=seed),
        noise(1, prefix + patches, 4, seed=seed + 1),
    )

    matching = match_bipartite(metric, removed=removed, prefix=prefix)
    merged = merge(Tokens(x), matching, prefix=prefix)

    expected = torch.tensor(
        naive_merge(x[0], metric[0], removed=removed, prefix=prefix), dtype=x.dtype
    )
    torch.testing.assert_close(merged.x[0], expected, rtol=1e-12, atol=1e-12)


@given(first=st.integers(1, 4), second=st.integers(1, 3), seed=st.integers(0, 99))
def test_two_merges_keep_the_weighted_sum_and_the_number_of_patches(
    first: int, second: int, seed: int
) -> None:
    x = noise(2, 1 + 9, 3, seed=seed)

    once = merge(Tokens(x), match_bipartite(x, removed=first, prefix=1), prefix=1)
    twice = merge(
        once, match_bipartite(once.x, removed=min(second, (9 - first) // 2), prefix=1), prefix=1
    )

    assert twice.size is not None
    torch.testing.assert_close((twice.x * twice.size).sum(1), x.sum(1))
    assert twice.size.sum(1).flatten().tolist() == [10, 10]


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
