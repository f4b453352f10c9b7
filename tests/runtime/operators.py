"""Every operator of the static kind in a policy for a ViT of 16 patches and 2 blocks.

Each acts twice where it can: on plain tokens, and on what it made of them.
"""

from timm.models.vision_transformer import VisionTransformer

from tests.runtime.test_apply import vit
from tokensearch.policy import Policy, Pool, Prune, PruneOrPool, Step
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
    pool = Pool(0, 10)
    return {
        **found,
        "prune or pool": proportional(PruneOrPool(0, 10, 6e-5), PruneOrPool(1, 6, 1e-3)),
        "prune then pool ranked": proportional(Prune(0, 12), Pool(0, 8, "ranked")),
        "pool unweighed": Policy(SPEC, (pool, Pool(1, 6))),
        "prefix only": Policy(SPEC, (pool,), proportional_attention=True, last_block="prefix_only"),
    }


POLICIES = policies()
