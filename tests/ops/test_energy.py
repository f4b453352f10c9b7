import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.ops import noise
from tokensearch.ops import Tokens, fold, margin_of, match_by_energy, start_tokens


def published(
    x: Tensor, size: Tensor, metric: Tensor, *, removed: int, margin: float, bipartite: bool
) -> dict[int, list[float]]:
    """PiToMe of one image without a class token, token by token: what each survivor becomes."""
    cosine = F.cosine_similarity(metric[:, None], metric[None], dim=-1)
    order = F.elu(cosine - margin).mean(1).argsort(descending=True).tolist()
    mergeable = order if bipartite else order[: 2 * removed]
    sources, targets = mergeable[::2], mergeable[1::2]
    edges = [(max(cosine[a, b] for b in targets), a) for a in sources]
    leaving = [a for _, a in sorted(edges, reverse=True)[:removed]]
    sums = {token: x[token] * size[token] for token in order if token not in leaving}
    weights = {token: size[token].clone() for token in sums}
    for a in leaving:
        partner = max(targets, key=lambda b: float(cosine[a, b]))
        sums[partner] = sums[partner] + x[a] * size[a]
        weights[partner] += size[a]
    return {token: (sums[token] / weights[token]).tolist() for token in sums}


@pytest.mark.parametrize("bipartite", [False, True])
@pytest.mark.parametrize(("patches", "removed"), [(12, 3), (11, 5)])
@pytest.mark.parametrize("prefix", [0, 2])
def test_tokens_merge_as_published(
    patches: int, removed: int, prefix: int, *, bipartite: bool
) -> None:
    x, metric = noise(3, prefix + patches, 4), noise(3, prefix + patches, 5, seed=1)
    size = noise(3, prefix + patches, 1, seed=2).abs() + 1
    folding = match_by_energy(
        metric, removed=removed, prefix=prefix, margin=0.4, bipartite=bipartite
    )

    after = fold(Tokens(x, size), folding, prefix=prefix)

    assert after.x.shape == (3, prefix + patches - removed, 4)
    assert torch.equal(after.x[:, :prefix], x[:, :prefix])
    for image in range(3):
        parts = (part[image, prefix:] for part in (x, size, metric))
        wanted = published(*parts, removed=removed, margin=0.4, bipartite=bipartite)
        expected = torch.tensor(sorted(wanted.values())).double()
        ours = torch.tensor(sorted(after.x[image, prefix:].tolist())).double()
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_sizes_are_kept_and_patches_followed() -> None:
    x = noise(2, 9, 4)
    folding = match_by_energy(x, removed=3, prefix=1, margin=0.5)
    tokens = start_tokens(x, prefix=1, places=False, sources=True)

    after = fold(tokens, folding, prefix=1)

    assert after.size is not None
    assert after.source is not None
    counts = torch.stack([row.bincount(minlength=5) for row in after.source])
    assert torch.equal(after.size[:, 1:, 0], counts.double())


def test_tokens_that_stand_alone_are_spared() -> None:
    alone = torch.eye(8, dtype=torch.float64)[:2]
    alike = torch.ones(6, 8, dtype=torch.float64) + 0.01 * noise(6, 8)
    x = torch.cat([alone, alike])[None]

    folding = match_by_energy(x, removed=3, prefix=0, margin=0.9)

    assert sorted(folding.stay[0].tolist()) == [0, 1]


def test_margins_fall_as_published() -> None:
    assert [margin_of(block, 12) for block in (0, 4, 8)] == [0.75, 0.5, 0.25]
