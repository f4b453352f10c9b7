"""By what policies are compared: right answers, or how far predictions moved."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

# top1       right answers; on images without labels the same as agreement
# agreement  answers that are those of the baseline
# kl         divergence of the predictions from those of the baseline
# ce         cross-entropy with the labels, or with the baseline's answers without labels
Objective = Literal["top1", "agreement", "kl", "ce"]
OBJECTIVES: tuple[str, ...] = get_args(Objective)

# Small enough that ten nats weigh less than one image of ten thousand.
TIE_PER_NAT = 1e-6


def objective_value(accuracy: Mapping[str, Any], objective: Objective) -> float:
    """Return what is to be made large, of an accuracy as the records write it.

    At most 1 for shares of answers, of which some hundred images leave many policies with the same:
    there what diverges less is better. At most 0 for `kl` and `ce`, which tell policies apart that
    answer alike.

    >>> objective_value({"top1": 0.9, "kl": 0.01, "ce": 0.2}, "kl")
    -0.01
    """
    if objective in {"kl", "ce"}:
        return -float(accuracy[objective])
    agrees = objective == "agreement"
    share = accuracy["agreed"] / accuracy["images"] if agrees else accuracy["top1"]
    return float(share) - TIE_PER_NAT * float(accuracy.get("kl", 0.0))


def best_value(objective: Objective) -> float:
    """Return what nothing can be worth more than."""
    return 0.0 if objective in {"kl", "ce"} else 1.0
