"""Token operators: pure functions on tensors, which know nothing of modules and policies."""

from tokensearch.ops.cluster import agglomerative, grid_2x2, kmeans, kmedoids, merge_clusters
from tokensearch.ops.energy import Folding, fold, margin_of, match_by_energy
from tokensearch.ops.fused import Kernels, is_fused, kernels_of, use_kernels
from tokensearch.ops.learning import attend_masked, mask_above, mask_below_rank
from tokensearch.ops.merger import merge_by_queries
from tokensearch.ops.pool import (
    Matching,
    attend_with_bias,
    is_attention_fused,
    mask_bias,
    match_bipartite,
    merge,
    merge_ranked,
    size_bias,
)
from tokensearch.ops.prune import Ranking, pick, pick_and_add, rank
from tokensearch.ops.prune_or_pool import prune_or_pool
from tokensearch.ops.scores import (
    OwnScoreFunction,
    add_score,
    attention_row,
    attention_score,
    check_own_score,
    class_attention,
    class_attention_value,
    head_weighted_class_attention,
    learned_score,
    mean_query,
    own_score,
    random_order,
    representation_shift,
)
from tokensearch.ops.threshold import keep_above
from tokensearch.ops.tokens import Moves, Tokens, cut, restore_grid, start_tokens, take, unmerge

__all__ = [
    "Folding",
    "Kernels",
    "Matching",
    "Moves",
    "OwnScoreFunction",
    "Ranking",
    "Tokens",
    "add_score",
    "agglomerative",
    "attend_masked",
    "attend_with_bias",
    "attention_row",
    "attention_score",
    "check_own_score",
    "class_attention",
    "class_attention_value",
    "cut",
    "fold",
    "grid_2x2",
    "head_weighted_class_attention",
    "is_attention_fused",
    "is_fused",
    "keep_above",
    "kernels_of",
    "kmeans",
    "kmedoids",
    "learned_score",
    "margin_of",
    "mask_above",
    "mask_below_rank",
    "mask_bias",
    "match_bipartite",
    "match_by_energy",
    "mean_query",
    "merge",
    "merge_by_queries",
    "merge_clusters",
    "merge_ranked",
    "own_score",
    "pick",
    "pick_and_add",
    "prune_or_pool",
    "random_order",
    "rank",
    "representation_shift",
    "restore_grid",
    "size_bias",
    "start_tokens",
    "take",
    "unmerge",
    "use_kernels",
]
