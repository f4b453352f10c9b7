"""Every operator of the static kind in a policy for a ViT of 16 patches and 2 blocks.

Each acts twice where it can: on plain tokens, and on what it made of them.
"""

from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokensearch
from tests.policy.learned import random_tensors
from tests.runtime.test_apply import vit
from tokensearch.policy import Merger, Policy, Pool, Prune, PruneOrPool, Step
from tokensearch.policy.steps import MATCHES, RESTS, SCORES
from tokensearch.runtime import describe


def host() -> VisionTransformer:
    return vit(depth=2)


SPEC = describe(host())


def proportional(*steps: Step) -> Policy:
    return Policy(SPEC, steps, proportional_attention=True)


def policies() -> dict[str, Policy]:
    found = {}
    for score in SCORES:
        found[f"prune by {score}"] = proportional(Prune(0, 10, score), Prune(1, 6, score))
    for rest in RESTS[1:]:
        found[f"prune, rest {rest}"] = proportional(Prune(0, 10, rest=rest), Prune(1, 6, rest=rest))
    for match in MATCHES:
        steps = (Pool(0, 10, match), Pool(1, 6, match))
        found[f"pool {match}"] = proportional(*((Pool(0, 4, match),) if match == "grid" else steps))
    pool, merger = Pool(0, 10), Merger(1, 4, "merger.1", values="raw")
    scored = Prune(0, 9, "learned", at="block_end", tensors="score.0")
    compared = Pool(1, 6, metric="learned", tensors="metric.1")
    merging = Merger(0, 6, "merger.0", scale=24**-0.5, at="between")
    tensors = random_tensors(SPEC.width, merging, merger)
    return {
        **found,
        "prune or pool": proportional(PruneOrPool(0, 10, 6e-5), PruneOrPool(1, 6, 1e-3)),
        "prune then pool ranked": proportional(Prune(0, 12), Pool(0, 8, "ranked")),
        "pool unweighed": Policy(SPEC, (pool, Pool(1, 6))),
        "merger": Policy(SPEC, (merging, merger), tensors=tensors),
        "pool then merger": Policy(
            SPEC,
            (pool, merger),
            proportional_attention=True,
            tensors=random_tensors(SPEC.width, merger),
        ),
        "learned": Policy(
            SPEC,
            (scored, compared),
            proportional_attention=True,
            tensors=random_tensors(SPEC.width, scored, compared),
        ),
        "prefix only": Policy(SPEC, (pool,), proportional_attention=True, last_block="prefix_only"),
    }


POLICIES = policies()


def everything() -> nn.Module:
    """A model that follows one policy with every operator: 64 patches, 10 blocks."""
    model = vit(img_size=64, depth=10)
    steps = (
        Pool(0, 16, "grid"),
        Prune(1, 15, "head_weighted_class_attention", rest="fuse"),
        Prune(2, 14, "class_attention_value", rest="mean"),
        PruneOrPool(3, 13, 6e-5),
        Prune(4, 12, "mean_attention"),
        Pool(4, 11, "kmeans"),
        Prune(5, 10, "random"),
        Pool(5, 9, "kmedoids"),
        Prune(6, 8),
        Pool(6, 7, "ranked"),
        Pool(7, 6),
        Pool(8, 5, "agglomerative"),
    )
    policy = Policy(describe(model), steps, proportional_attention=True, last_block="prefix_only")
    return tokensearch.apply(model, policy)
