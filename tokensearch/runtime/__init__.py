"""What ships to production: make a model follow a policy. Imports torch and nothing else."""

from tokensearch.runtime.attach import applied, apply, policy_of, ranged, remove, trace
from tokensearch.runtime.backends import Forward, backed, check_backend, choose_backend
from tokensearch.runtime.fit import check, resolve
from tokensearch.runtime.host import describe, reads_prefix_only, weights_digest
from tokensearch.runtime.opened import Around
from tokensearch.runtime.ranges import traced_range
from tokensearch.runtime.resume import captured, check_resumes, entering_key, logits_from, resumed

__all__ = [
    "Around",
    "Forward",
    "applied",
    "apply",
    "backed",
    "captured",
    "check",
    "check_backend",
    "check_resumes",
    "choose_backend",
    "describe",
    "entering_key",
    "logits_from",
    "policy_of",
    "ranged",
    "reads_prefix_only",
    "remove",
    "resolve",
    "resumed",
    "trace",
    "traced_range",
    "weights_digest",
]
