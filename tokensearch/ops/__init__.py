"""Token operators: pure functions on tensors, which know nothing of modules and policies."""

from tokensearch.ops.pool import Matching, match_bipartite, merge, size_bias
from tokensearch.ops.prune import best, pick
from tokensearch.ops.scores import class_attention, random_order
from tokensearch.ops.tokens import Tokens, take

__all__ = [
    "Matching",
    "Tokens",
    "best",
    "class_attention",
    "match_bipartite",
    "merge",
    "pick",
    "random_order",
    "size_bias",
    "take",
]
