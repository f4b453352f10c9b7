import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ops import noise, sequence
from tokensearch.ops import (
    kmeans,
    match_bipartite,
    merge,
    merge_clusters,
    merge_ranked,
    pick,
    pick_and_add,
    rank,
    restore_grid,
    start_tokens,
    take,
    unmerge,
)


def test_rows_are_taken_per_image() -> None:
    rows = take(sequence().x, torch.tensor([[0, 3], [6, 1]]))

    assert rows.flatten().tolist() == [0, 3, 106, 101]


@given(seed=st.integers(0, 99))
def test_sources_follow_tokens_through_every_operator(seed: int) -> None:
    x = noise(2, 1 + 16, 3, seed=seed)
    metric, score = noise(2, 17, 4, seed=seed + 1), noise(2, 16, seed=seed + 2)
    start = start_tokens(x, prefix=1, places=True, sources=True)
    steps = {
        "bipartite": merge(start, match_bipartite(metric, removed=7, prefix=1), prefix=1),
        "kmeans": merge_clusters(start, kmeans(x[:, 1:], clusters=5), clusters=5, prefix=1),
        "ranked": merge_ranked(start, rank(score, keep=9, prefix=1), prefix=1),
        "mean": pick_and_add(start, rank(score, keep=9, prefix=1), prefix=1),
    }
    for name, after in steps.items():
        assert after.source is not None, name
        for image in range(2):
            for token in range(after.x.shape[1] - 1):
                held = (after.source[image] == token).nonzero().flatten()
                mean = x[image, 1 + held].mean(0)  # all sizes are one, so every merge is a mean
                torch.testing.assert_close(after.x[image, 1 + token], mean, msg=name)
                assert after.position is not None
                assert after.position[image, token] in held, name  # the position of one it holds


def test_a_merged_token_has_the_position_of_the_one_that_was_joined() -> None:
    metric = torch.tensor([[[0.0, 0], [1, 0], [0, 1], [0, 1], [-1, 0]]])  # class, then B A B A
    start = start_tokens(torch.zeros(1, 5, 1), prefix=1, places=True, sources=True)

    merged = merge(start, match_bipartite(metric, removed=1, prefix=1), prefix=1)

    assert merged.position is not None
    assert merged.source is not None
    assert merged.position.tolist() == [[3, 0, 2]]  # what stays of A, then B
    assert merged.source.tolist() == [[1, 2, 2, 0]]  # patch 1 joined patch 2


def test_discarded_patches_have_no_source_and_keep_their_last_features() -> None:
    x = noise(1, 1 + 4, 3)
    start = start_tokens(x, prefix=1, places=False, sources=True)

    once = pick(start, torch.tensor([[0, 2, 3, 4]]), prefix=1)
    twice = pick(once._replace(x=once.x + 10), torch.tensor([[0, 1, 3]]), prefix=1)

    assert twice.source is not None
    assert twice.source.tolist() == [[-1, 0, -1, 1]]
    full = restore_grid(twice._replace(x=twice.x + 100), prefix=1)[0, 1:]
    expected = torch.stack([x[0, 1], x[0, 2] + 110, x[0, 3] + 10, x[0, 4] + 110])
    torch.testing.assert_close(full, expected)


def test_patches_without_a_token_are_unmerged_to_zeros() -> None:
    grid = unmerge(torch.ones(1, 3, 2), torch.tensor([[1, -1, 0]]), prefix=1)

    assert grid[0, :, 0].tolist() == [1, 1, 0, 1]
