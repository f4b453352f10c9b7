"""What ships to production: make a model follow a policy. Imports torch and nothing else."""

from tokensearch.ops import add_score
from tokensearch.runtime.attach import (
    applied,
    apply,
    choosing_thresholds,
    count_tokens,
    follow_blocks,
    learning_masks,
    phase_ranges,
    policy_of,
    remove,
    trace,
)
from tokensearch.runtime.backends import Forward, check_backend, choose_backend, with_backend
from tokensearch.runtime.compatibility import check_policy, resolve_policy
from tokensearch.runtime.host import describe, reads_prefix_only, weights_digest
from tokensearch.runtime.partial_forward import (
    capture_activations,
    check_resumes,
    entering_key,
    logits_from,
    resume_forward,
)
from tokensearch.runtime.profiler_ranges import traced_range
from tokensearch.runtime.reduced_block import Around

__all__ = [
    "Around",
    "Forward",
    "add_score",
    "applied",
    "apply",
    "capture_activations",
    "check_backend",
    "check_policy",
    "check_resumes",
    "choose_backend",
    "choosing_thresholds",
    "count_tokens",
    "describe",
    "entering_key",
    "follow_blocks",
    "learning_masks",
    "logits_from",
    "phase_ranges",
    "policy_of",
    "reads_prefix_only",
    "remove",
    "resolve_policy",
    "resume_forward",
    "trace",
    "traced_range",
    "weights_digest",
    "with_backend",
]
