import pytest
import torch
from torch import Tensor, nn

from tests.ops import noise
from tokensearch.ops import Tokens, merge_by_queries, start_tokens


def published(x: Tensor, queries: Tensor, norm: nn.LayerNorm, scale: float) -> Tensor:
    """PatchMerger as its public implementations have it: vit-pytorch's scales by width ** -0.5."""
    normed = norm(x)
    weights = torch.softmax(torch.einsum("qc,bnc->bqn", queries, normed) * scale, dim=-1)
    return torch.einsum("bqn,bnc->bqc", weights, normed)


def layer_norm(width: int) -> nn.LayerNorm:
    norm = nn.LayerNorm(width).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("scale", [1.0, 8**-0.5])
def test_means_are_those_of_the_published_module(scale: float) -> None:
    x, queries, norm = noise(2, 10, 8), noise(3, 8, seed=1), layer_norm(8)

    pair = norm.weight, norm.bias
    after = merge_by_queries(Tokens(x), queries, pair, scale=scale, raw=False, prefix=2).x

    expected = published(x[:, 2:], queries, norm, scale)
    torch.testing.assert_close(after[:, 2:], expected, rtol=0, atol=1e-9)
    assert torch.equal(after[:, :2], x[:, :2])


def test_raw_means_lie_among_the_tokens_themselves() -> None:
    x, norm = noise(1, 6, 4) + 7, layer_norm(4)
    pair = norm.weight, norm.bias

    after = merge_by_queries(Tokens(x), noise(2, 4), pair, scale=1.0, raw=True, prefix=1).x

    assert (after[:, 1:] >= x[:, 1:].amin(1, keepdim=True)).all()
    assert (after[:, 1:] <= x[:, 1:].amax(1, keepdim=True)).all()


def test_a_patch_is_held_by_the_query_that_weighs_it_most() -> None:
    x = torch.eye(4, dtype=torch.float64)[None, [0, 1, 2, 1, 2]]  # a prefix token, then patches
    queries = 30 * torch.eye(4, dtype=torch.float64)[[2, 1]]
    pair = torch.ones(4).double(), torch.zeros(4).double()

    tokens = start_tokens(x, prefix=1, places=True, sources=True)
    after = merge_by_queries(tokens, queries, pair, scale=1.0, raw=True, prefix=1)

    assert after.source is not None
    assert after.position is not None
    assert after.source.tolist() == [[1, 0, 1, 0]]
    assert after.position.tolist() == [[1, 0]]


def test_a_mean_counts_as_one_patch() -> None:
    x, pair = noise(1, 5, 4), (torch.ones(4), torch.zeros(4))
    sized = Tokens(x, torch.tensor([[[1.0], [4], [2], [1], [1]]]).double())

    after = merge_by_queries(sized, noise(2, 4), pair, scale=1.0, raw=False, prefix=1)

    assert after.size is not None
    assert after.size.flatten().tolist() == [1, 1, 1]
