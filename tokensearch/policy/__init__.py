"""Policies: what blocks do with their tokens, how that is written down, what was published."""

from tokensearch.policy.file import is_file, load, load_set, save, save_set
from tokensearch.policy.macs import block_macs, mac_share
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import Evidence, Policy, changes_sizes
from tokensearch.policy.policy_set import PolicySet, merit
from tokensearch.policy.presets import PRESETS, Preset, at_random, preset
from tokensearch.policy.steps import CLASS_SCORES, Keep, Pool, Prune, PruneOrPool, Score, Step
from tokensearch.policy.target import Target, parse_target

__all__ = [
    "CLASS_SCORES",
    "PRESETS",
    "Evidence",
    "Keep",
    "ModelSpec",
    "Policy",
    "PolicySet",
    "Pool",
    "Preset",
    "Prune",
    "PruneOrPool",
    "Score",
    "Step",
    "Target",
    "at_random",
    "block_macs",
    "changes_sizes",
    "is_file",
    "load",
    "load_set",
    "mac_share",
    "merit",
    "parse_target",
    "preset",
    "save",
    "save_set",
]
