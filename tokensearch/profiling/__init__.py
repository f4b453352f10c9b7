"""Where the time of a pass goes under a policy: models and policies in, profiles out."""

from tokensearch.profiling.doubts import doubts
from tokensearch.profiling.passes import SPLIT, twin
from tokensearch.profiling.profile import Plan, profile

__all__ = ["SPLIT", "Plan", "doubts", "profile", "twin"]
