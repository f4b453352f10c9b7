"""Merge patch tokens in clusters: k-means, k-medoids, agglomerative, and the 2 x 2 grid."""

from math import isqrt
from typing import Literal

import torch
from torch import Tensor

from tokensearch.ops.pool import normalize, one_hot
from tokensearch.ops.prune import first_rows
from tokensearch.ops.tokens import Moves, Tokens, follow_moves, in_own_type, is_tracked, take

# Token Pooling (arXiv:2110.03860) reports that clusters settle within about five rounds.
ROUNDS = 5
Linkage = Literal["single", "complete", "average"]


@in_own_type
def merge_clusters(tokens: Tokens, label: Tensor, *, clusters: int, prefix: int) -> Tokens:
    """Replace every cluster by the mean of its members, weighted by size.

    tokens  (B, P + N, C)
    label   (B, N)          cluster of each patch token, 0 to `clusters` - 1, none of them empty
    ->      (B, P + clusters, C)
    """
    x, size = tokens.x, tokens.size
    member = one_hot(label, rows=clusters, dtype=x.dtype)  # (B, clusters, N)
    if size is not None:
        member = member * size[:, prefix:].transpose(1, 2)
    counts = member.sum(2, keepdim=True)
    first = counts.new_ones(x.shape[0], prefix, 1) if size is None else size[:, :prefix]
    # Shares before sums: in half precision a sum of many would overflow.
    merged = (member / counts) @ x[:, prefix:]
    after = Tokens(torch.cat([x[:, :prefix], merged], 1), torch.cat([first, counts], 1))
    if not is_tracked(tokens):
        return after
    own = torch.arange(prefix, device=label.device).expand(x.shape[0], prefix)
    moves = Moves(
        torch.cat([own, (member > 0).int().argmax(dim=2) + prefix], dim=1),  # the first of each
        torch.cat([own, label + prefix], dim=1),
    )
    return follow_moves(tokens, after, moves, prefix=prefix)


@in_own_type
def kmeans(features: Tensor, *, clusters: int) -> Tensor:
    """Cluster around means, by Euclidean distance, from evenly spaced tokens.

    features  (B, N, D)
    ->        (B, N)     labels; every cluster keeps at least its seed

    Source: Token Pooling (arXiv:2110.03860).
    """
    seeds = _spread(features, clusters)
    centre = take(features, seeds)
    label = _nearest(features, centre, seeds)
    for _ in range(ROUNDS - 1):
        member = one_hot(label, rows=clusters, dtype=features.dtype)
        centre = (member / member.sum(2, keepdim=True)) @ features
        label = _nearest(features, centre, seeds)
    return label


@in_own_type
def kmedoids(features: Tensor, *, clusters: int) -> Tensor:
    """Cluster around tokens that lie nearest to all others of their cluster.

    features  (B, N, D)
    ->        (B, N)     labels; every cluster holds at least its centre

    Source: Token Pooling (arXiv:2110.03860).
    """
    distance = _distances(features, features)
    # Of a cluster of two, either is the medoid: an exact tie, which rounding must not decide.
    every = torch.arange(features.shape[1], device=features.device)
    itself = every[:, None] == every
    distance = (distance + distance.transpose(1, 2)).masked_fill(itself, 0)
    centre = _spread(features, clusters)
    label = _nearest(features, take(features, centre), centre)
    for _ in range(ROUNDS - 1):
        member = one_hot(label, rows=clusters, dtype=features.dtype)
        cost = (member.to(distance.dtype) @ distance).masked_fill(
            member == 0, torch.inf
        )  # (B, clusters, N)
        centre = cost.argmin(dim=2)
        label = _nearest(features, take(features, centre), centre)
    return label


def agglomerative(features: Tensor, *, clusters: int, linkage: Linkage = "average") -> Tensor:
    """Join the two nearest clusters until `clusters` are left, by cosine distance.

    features  (B, N, D)
    ->        (B, N)     labels, numbered by each cluster's first token

    N - `clusters` rounds over a (B, N, N) matrix, after Lance and Williams (1967): an oracle for
    the quality of pooling, not a fast operator. Source: ATC (arXiv:2409.11923).
    """
    direction = normalize(features)
    count = features.shape[1]
    every = torch.arange(count, device=features.device)
    itself = every[:, None] == every
    distance = (1 - direction @ direction.transpose(1, 2)).masked_fill(itself, torch.inf)
    label = first_rows(distance.argmin(dim=2), count)  # a cluster is called by its first token
    weight = (label >= 0).to(features.dtype)
    for _ in range(count - clusters):
        nearest = distance.flatten(1).argmin(dim=1)
        low = torch.minimum(nearest // count, nearest % count)[:, None]
        high = torch.maximum(nearest // count, nearest % count)[:, None]
        joined = _link(distance, weight, low=low, high=high, linkage=linkage)
        is_low, is_high = every == low, every == high
        gone = is_high[:, None] | is_high[:, :, None]
        distance = torch.where(is_low[:, :, None], joined[:, None], distance)
        distance = torch.where(is_low[:, None], joined[:, :, None], distance)
        distance = distance.masked_fill(gone | itself, torch.inf)
        weight = weight + torch.where(is_low, weight.gather(1, high), 0)
        label = torch.where(label == high, low, label)
    first = label == every
    return (first.long().cumsum(dim=1) - 1).gather(1, label)


def grid_2x2(images: int, patch_tokens: int, *, device: torch.device) -> Tensor:
    """Labels (images, N) of the 2 x 2 neighbourhoods of a square grid with an even side."""
    side = isqrt(patch_tokens)
    half = torch.arange(side, device=device) // 2
    return (half[:, None] * (side // 2) + half).flatten().expand(images, patch_tokens)


def _link(
    distance: Tensor, weight: Tensor, *, low: Tensor, high: Tensor, linkage: Linkage
) -> Tensor:
    """Distances (B, N) of the cluster that `low` and `high` become; inf where one has none."""
    rows = take(distance, torch.cat([low, high], dim=1))
    first, second = rows[:, 0], rows[:, 1]
    match linkage:
        case "single":
            return torch.minimum(first, second)
        case "complete":
            return torch.maximum(first, second)
        case "average":
            share = weight.gather(1, low) / (weight.gather(1, low) + weight.gather(1, high))
            return share * first + (1 - share) * second


def _spread(features: Tensor, clusters: int) -> Tensor:
    """Evenly spaced places (B, clusters), the same for every image: nothing is left to chance."""
    images, count, _ = features.shape
    centre = torch.arange(clusters, device=features.device) * count // clusters
    return centre.expand(images, clusters)


def _nearest(features: Tensor, centre: Tensor, own: Tensor) -> Tensor:
    """Label tokens by their nearest centre; the token at `own[k]` stays in cluster k."""
    label = _distances(features, centre).argmin(dim=2)
    return label.scatter(1, own, torch.arange(own.shape[1], device=own.device).expand_as(own))


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distances (B, M, K), in single precision at least.

    Half precision overflows where they come from: the square of a length of 256 is above 65504.
    """
    wide = torch.promote_types(first.dtype, torch.float32)
    first, second = first.to(wide), second.to(wide)
    if not torch.onnx.is_in_onnx_export():
        return torch.cdist(first, second)
    # Torch's exporter does not know it; by the binomial formula, since the differences themselves
    # would fill (B, M, K, C).
    squares = first.square().sum(2)[:, :, None] + second.square().sum(2)[:, None]
    return (squares - 2 * (first @ second.transpose(1, 2))).relu().sqrt()
