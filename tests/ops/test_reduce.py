import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops import noise, sequence
from tokensearch.ops import (
    Tokens,
    match_bipartite,
    merge,
    merge_clusters,
    merge_ranked,
    pick,
    pick_and_add,
    prune_or_pool,
    rank,
    size_bias,
)


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
    stay = [t for t in a if t not in leaving]
    if not prefix:  # without a class token the authors' code leaves them most similar first
        stay.sort(key=lambda t: (-edges[t][0], t))
    kept = [*range(prefix), *stay]
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


def test_the_fused_token_is_the_sum_of_the_discarded_weighted_by_score() -> None:
    x, score = noise(1, 5, 3), torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64)

    ranking = rank(score, keep=2, prefix=1)
    fused = pick_and_add(Tokens(x), ranking, prefix=1, weight=score)

    torch.testing.assert_close(fused.x[0, :3], x[0, [0, 2, 4]])
    torch.testing.assert_close(fused.x[0, 3], 0.1 * x[0, 1] + 0.2 * x[0, 3])
    assert fused.size is None  # it counts as one token


def test_the_mean_token_is_the_mean_of_the_discarded() -> None:
    x = noise(1, 5, 3)

    added = pick_and_add(Tokens(x), rank(x[:, 1:, 0], keep=1, prefix=1), prefix=1)

    rest = [t for t in range(1, 5) if t != 1 + int(x[0, 1:, 0].argmax())]
    torch.testing.assert_close(added.x[0, 2], x[0, rest].mean(0))


def test_ranked_merging_equals_the_naive_definition() -> None:
    x, size = noise(1, 7, 3), noise(1, 7, 1, seed=1).abs() + 1
    score = noise(1, 6, seed=2)

    merged = merge_ranked(Tokens(x, size), rank(score, keep=4, prefix=1), prefix=1)

    order = (1 + score[0].argsort(descending=True)).tolist()
    stay, leave = sorted(order[:4]), order[4:]
    members, sizes = {t: [t] for t in stay}, {t: float(size[0, t]) for t in [0, *stay]}
    for t in leave:
        cosine = torch.cosine_similarity(x[0, t], x[0, stay], dim=-1)
        members[stay[int(cosine.argmax())]].append(t)
        sizes[stay[int(cosine.argmax())]] += float(size[0, t] * cosine.max())
    expected = torch.stack([x[0, 0], *(x[0, members[t]].mean(0) for t in stay)])
    torch.testing.assert_close(merged.x[0], expected)
    assert merged.size is not None
    assert merged.size[0, :, 0].tolist() == pytest.approx([sizes[t] for t in [0, *stay]])


def test_a_ranked_merge_of_opposites_leaves_sizes_that_have_a_logarithm() -> None:
    x = torch.tensor([[[1.0], [1.0], [-1.0], [-1.0]]])

    merged = merge_ranked(Tokens(x), rank(torch.tensor([[3.0, 2, 1]]), keep=1, prefix=1), prefix=1)

    assert merged.size is not None
    assert size_bias(merged.size).isfinite().all()


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_rule_prunes_or_pools_by_the_variance_of_the_scores(threshold: float) -> None:
    x, metric = noise(2, 1 + 8, 3), noise(2, 9, 4, seed=1)
    score = noise(2, 8, seed=2).softmax(1)

    found = prune_or_pool(Tokens(x), score, metric, keep=5, prefix=1, threshold=threshold)

    pooled = merge(Tokens(x), match_bipartite(metric, removed=3, prefix=1), prefix=1).x
    pruned = pick(Tokens(x), rank(score, keep=5, prefix=1, by_score=True).kept, prefix=1).x
    torch.testing.assert_close(found.x, pooled if threshold else pruned)


def test_a_batch_may_be_pruned_and_pooled_at_once() -> None:
    x, metric = noise(2, 1 + 8, 3), noise(2, 9, 4, seed=1)
    flat, peaked = torch.full((8,), 0.125), torch.tensor([0.93] + [0.01] * 7)
    score = torch.stack([flat, peaked]).double()

    both = prune_or_pool(Tokens(x), score, metric, keep=5, prefix=1, threshold=1e-3)
    alone = [
        prune_or_pool(
            Tokens(x[i : i + 1]),
            score[i : i + 1],
            metric[i : i + 1],
            keep=5,
            prefix=1,
            threshold=threshold,
        )
        for i, threshold in enumerate((1.0, 0.0))
    ]

    torch.testing.assert_close(both.x, torch.cat([one.x for one in alone]))


def test_the_mean_token_weighs_the_discarded_by_size() -> None:
    x, size = torch.tensor([[[0.0], [9.0], [1.0], [3.0]]]), torch.tensor([[[1.0], [1], [9], [1]]])

    added = pick_and_add(
        Tokens(x, size), rank(torch.tensor([[3.0, 2, 1]]), keep=1, prefix=1), prefix=1
    )

    assert added.x.flatten().tolist() == pytest.approx([0, 9, 1.2])
    assert added.size is not None
    assert added.size.flatten().tolist() == [1, 1, 10]


def merges(x: torch.Tensor, size: torch.Tensor) -> dict[str, Tokens]:
    """Every merge that there is, of tokens that all look alike."""
    tokens, flat = Tokens(x, size), torch.zeros(x.shape[0], x.shape[1] - 1)
    clusters = torch.zeros_like(flat, dtype=torch.long)
    return {
        "bipartite": merge(tokens, match_bipartite(x, removed=4, prefix=1), prefix=1),
        "ranked": merge_ranked(tokens, rank(flat, keep=2, prefix=1), prefix=1),
        "clusters": merge_clusters(tokens, clusters, clusters=1, prefix=1),
        "mean": pick_and_add(tokens, rank(flat, keep=1, prefix=1), prefix=1),
    }


def test_large_features_of_large_tokens_do_not_overflow_half_precision() -> None:
    x, size = torch.full((2, 9, 3), 400.0).half(), torch.full((2, 9, 1), 90.0).half()

    for name, merged in merges(x, size).items():
        torch.testing.assert_close(merged.x, torch.full_like(merged.x, 400.0), msg=name)


def test_autocast_does_not_round_the_features_that_are_merged() -> None:
    x, size = noise(2, 9, 3).float(), torch.ones(2, 9, 1)
    expected = merges(x, size)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = merges(x, size)

    for name, merged in found.items():
        if name != "bipartite":  # whose matching is on rounded similarities
            torch.testing.assert_close(merged.x, expected[name].x, msg=name)
    rounded = (found["bipartite"].x.bfloat16().float() == found["bipartite"].x).float().mean()
    assert rounded < 0.1
