from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from sklearn.cluster import KMeans

from tests.ops import noise
from tokensearch.ops import Tokens, agglomerative, grid_2x2, kmeans, kmedoids, merge_clusters

Clustering = Callable[..., torch.Tensor]


def partition(labels: list[int]) -> set[frozenset[int]]:
    return {
        frozenset(place for place, other in enumerate(labels) if other == label) for label in labels
    }


@given(clusters=st.integers(1, 9), seed=st.integers(0, 99))
@pytest.mark.parametrize("linkage", ["single", "complete", "average"])
def test_agglomerative_labels_are_those_of_scipy(linkage: str, clusters: int, seed: int) -> None:
    x = noise(2, 9, 3, seed=seed)

    found = agglomerative(x, clusters=clusters, linkage=linkage)

    for image in range(2):
        tree = hierarchy.linkage(x[image].numpy(), method=linkage, metric="cosine")
        expected = hierarchy.cut_tree(tree, clusters)  # scipy 1.13's fcluster may cut one short
        assert partition(found[image].tolist()) == partition(expected[:, 0].tolist())
        assert sorted(set(found[image].tolist())) == list(range(clusters))


@given(clusters=st.integers(1, 12), seed=st.integers(0, 99))
@pytest.mark.parametrize("cluster", [kmeans, kmedoids])
def test_no_cluster_is_empty(cluster: Clustering, clusters: int, seed: int) -> None:
    x = noise(2, 12, 3, seed=seed)
    x[:, 3:9] = 0  # equal tokens, which a nearest centre would all gather

    label = cluster(x, clusters=clusters)

    assert all(sorted(set(image)) == list(range(clusters)) for image in label.tolist())


@pytest.mark.parametrize("cluster", [kmeans, kmedoids])
def test_blobs_that_lie_apart_are_found(cluster: Clustering) -> None:
    centre = torch.tensor([[0.0, 0], [9, 0], [0, 9]], dtype=torch.float64)
    belongs = torch.arange(12) // 4  # evenly spaced seeds fall into each
    x = centre[belongs][None] + 0.1 * noise(1, 12, 2)

    assert cluster(x, clusters=3)[0].tolist() == belongs.tolist()


def test_kmeans_ends_where_scikit_learn_ends_from_the_same_seeds() -> None:
    x = noise(1, 40, 2)
    seeds = x[0, [0, 10, 20, 30]].numpy()

    found = kmeans(x, clusters=4)

    reference = KMeans(4, init=seeds, n_init=1, max_iter=5, algorithm="lloyd").fit(x[0].numpy())
    agree = (found[0].numpy() == reference.labels_).mean()
    assert agree >= 0.95  # ours holds each seed in its own cluster


def test_a_grid_merges_neighbours() -> None:
    tokens = Tokens(torch.arange(17.0).view(1, 17, 1))

    merged = merge_clusters(
        tokens, grid_2x2(1, 16, device=torch.device("cpu")), clusters=4, prefix=1
    )

    assert merged.x.flatten().tolist() == [0, 3.5, 5.5, 11.5, 13.5]
