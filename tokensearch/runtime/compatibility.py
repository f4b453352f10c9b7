"""Whether a policy fits a model."""

import warnings
from pathlib import Path

from torch import nn

from tokensearch.errors import ModelError, PolicyError, TokensearchWarning
from tokensearch.ops import check_own_score
from tokensearch.policy import CLASS_SCORES, Policy, changes_sizes, is_file, load, preset
from tokensearch.policy.steps import is_own
from tokensearch.runtime.host import (
    as_host,
    describe,
    has_class_token,
    reads_prefix_only,
    unwrap,
    weights_digest,
)
from tokensearch.runtime.pooled_head import averages
from tokensearch.runtime.towers import tower_of


def check_policy(model: nn.Module, policy: Policy) -> None:
    """Refuse a policy that does not fit; warn about one found on other weights."""
    own, wanted = describe(model), policy.model
    any_size = as_host(model).any_size  # what enters is counted in every pass
    for field in ("blocks", "patch_tokens", "prefix_tokens", "width"):
        if field == "patch_tokens" and any_size:
            continue
        has, wants = getattr(own, field), getattr(wanted, field)
        if has != wants:
            raise PolicyError(
                f"the policy was made for {wanted.name} with {field} {wants}; "
                f"{own.name} has {field} {has}"
            )
    if policy.last_block == "prefix_only" and not reads_prefix_only(model):
        raise ModelError(
            f"last_block is prefix_only, but the head of {own.name} reads patch tokens"
        )
    if policy.counts == "per_image" and not (reads_prefix_only(model) or averages(unwrap(model))):
        raise ModelError(
            f"the policy keeps other counts for other images, which the head of {own.name} "
            f"cannot tell apart; it must read the class token or the average of all tokens"
        )
    for score in sorted(filter(is_own, policy.scores)):
        check_own_score(score)
    by_class = sorted(policy.scores & CLASS_SCORES)
    if by_class and not has_class_token(model):
        raise ModelError(
            f"the policy scores by {by_class[0].replace('_', ' ')}, but {own.name} has no class "
            f"token; PPT's rule needs one, others take preset(name, model, score='mean_attention')"
        )
    _check_grid(model, policy)
    _compare_weights(model, policy)


def warn_of_average(model: nn.Module, policy: Policy) -> None:
    """Warn where a tower alone is to merge tokens: a head around it would count each once."""
    tower, bare = tower_of(unwrap(model)), unwrap(model)
    if tower is None or tower.module is not bare or not tower.may_be_averaged:
        return
    if getattr(model, "reads_pooled", False):  # of our own around it
        return
    if any(changes_sizes(step) for step in policy.steps):
        warnings.warn(
            f"a {tower.kind} alone hands out a merged token once, however many patches it stands "
            f"for; where its patch tokens are averaged, apply the policy to the model that does "
            f"so, or with dense=True",
            TokensearchWarning,
            stacklevel=3,
        )


def _check_grid(model: nn.Module, policy: Policy) -> None:
    """Refuse squares of patches where these lie in another shape than a square."""
    if not is_square(model) and any(
        getattr(step, "match", None) == "grid" for step in policy.steps
    ):
        raise ModelError(
            f"the policy pools a square grid, which the patches of {describe(model).name} "
            f"are not; take another match, such as bipartite"
        )


def is_square(model: nn.Module) -> bool:
    """Whether a model's patches lie in a square."""
    model = unwrap(model)
    embeds = tower_of(model) or getattr(model, "patch_embed", None)
    grid = getattr(embeds, "grid_size", None)
    return grid is None or grid[0] == grid[1]


def _compare_weights(model: nn.Module, policy: Policy) -> None:
    """Warn where a policy was found on other weights, or where that cannot be told."""
    wanted = policy.model
    if wanted.weights is None:
        return
    digest = weights_digest(model)
    if digest is None:
        warnings.warn(
            f"some weights are quantised, sharded or computed and have no hash, so that nobody can "
            f"tell whether the policy was found on this {wanted.name}",
            TokensearchWarning,
            stacklevel=4,
        )
    elif digest != wanted.weights:
        warnings.warn(
            f"the policy was found on other weights of {wanted.name} than this model has, or in "
            f"another number type; its evidence does not hold here",
            TokensearchWarning,
            stacklevel=4,
        )


def resolve_policy(model: nn.Module, policy: Policy | str | Path) -> Policy:
    """Return the policy that a path or a preset's name stands for; PolicyError if neither."""
    if isinstance(policy, Policy):
        return policy
    return load(policy) if is_file(policy) else preset(str(policy), describe(model))
