"""Where the time of a pass goes under a policy: models and policies in, profiles out."""

from tokensearch.profiling.passes import SPLIT, copy_sharing_weights
from tokensearch.profiling.profile import ProfilePlan, profile, profile_cautions

__all__ = ["SPLIT", "ProfilePlan", "copy_sharing_weights", "profile", "profile_cautions"]
