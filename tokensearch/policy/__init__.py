"""Policies: what blocks do with their tokens, how that is written down, what was published."""

from tokensearch.policy.answer import Choice, Goal, Outcome, PolicyFigures, RightImages, choose
from tokensearch.policy.file import is_file, load, load_set, save, save_set
from tokensearch.policy.model_spec import BOUNDS, ModelSpec
from tokensearch.policy.objective import (
    DISTANCES,
    EMBEDDING_OBJECTIVES,
    OBJECTIVES,
    EmbeddingObjective,
    Objective,
    best_value,
    objective_value,
)
from tokensearch.policy.policy import (
    Evidence,
    Policy,
    block_macs,
    changes_sizes,
    check_static,
    mac_share,
)
from tokensearch.policy.policy_set import PolicySet
from tokensearch.policy.presets import (
    RANDOM,
    RESCALED,
    Options,
    at_random,
    find,
    is_control,
    is_published,
    known_preset,
    preset,
)
from tokensearch.policy.schedules import CONTROL, FAMILIES, PRESETS, Preset
from tokensearch.policy.steps import (
    CLASS_SCORES,
    Keep,
    Merger,
    Pool,
    Prune,
    PruneOrPool,
    Score,
    Step,
    Threshold,
)
from tokensearch.policy.target import Target, parse_target
from tokensearch.policy.tensors import RawTensor, Tensors

__all__ = [
    "BOUNDS",
    "CLASS_SCORES",
    "CONTROL",
    "DISTANCES",
    "EMBEDDING_OBJECTIVES",
    "FAMILIES",
    "OBJECTIVES",
    "PRESETS",
    "RANDOM",
    "RESCALED",
    "Choice",
    "EmbeddingObjective",
    "Evidence",
    "Goal",
    "Keep",
    "Merger",
    "ModelSpec",
    "Objective",
    "Options",
    "Outcome",
    "Policy",
    "PolicyFigures",
    "PolicySet",
    "Pool",
    "Preset",
    "Prune",
    "PruneOrPool",
    "RawTensor",
    "RightImages",
    "Score",
    "Step",
    "Target",
    "Tensors",
    "Threshold",
    "at_random",
    "best_value",
    "block_macs",
    "changes_sizes",
    "check_static",
    "choose",
    "find",
    "is_control",
    "is_file",
    "is_published",
    "known_preset",
    "load",
    "load_set",
    "mac_share",
    "objective_value",
    "parse_target",
    "preset",
    "save",
    "save_set",
]
