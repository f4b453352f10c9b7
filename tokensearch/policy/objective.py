"""By what policies are compared: right answers, or how far predictions or embeddings moved."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from tokensearch.errors import PolicyError

# By what embeddings are compared.
# cosine  similarity to the embedding of the baseline, image by image
# knn     right classes by the votes of the nearest images of `search`, as the baseline embeds them
# probe   right classes by a linear classifier of the baseline's embeddings of `search`
EmbeddingObjective = Literal["cosine", "knn", "probe"]
# top1       right answers; on images without labels the same as agreement
# agreement  answers that are those of the baseline
# kl         divergence of the predictions from those of the baseline
# ce         cross-entropy with the labels, or with the baseline's answers without labels
Objective = Literal["top1", "agreement", "kl", "ce", "cosine", "knn", "probe"]
EMBEDDING_OBJECTIVES: tuple[EmbeddingObjective, ...] = get_args(EmbeddingObjective)
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
DISTANCES: tuple[Objective, ...] = ("kl", "ce", "cosine")  # from the baseline or a label; 0 is best

# Small enough that ten nats weigh less than one image of ten thousand.
TIE_PER_NAT = 1e-6


def objective_value(accuracy: Mapping[str, Any], objective: Objective) -> float:
    """Return what is to be made large, of an accuracy as the records write it.

    At most 1 for shares of answers, of which some hundred images leave many policies with the same:
    there what diverges less is better. At most 0 for `DISTANCES`, which tell policies apart that
    answer alike.

    >>> objective_value({"top1": 0.9, "kl": 0.01, "ce": 0.2}, "kl")
    -0.01

    PolicyError where it was not judged by the objective.
    """
    try:
        return _value(accuracy, objective)
    except (KeyError, TypeError) as error:
        raise PolicyError(
            f"an accuracy of kind {accuracy.get('kind')!r:.60} does not say {objective}; judge it "
            f"anew in another run folder"
        ) from error


def _value(accuracy: Mapping[str, Any], objective: Objective) -> float:
    match objective:
        case "kl" | "ce":
            return -float(accuracy[objective])
        case "cosine":
            return float(accuracy["cosine"]) - 1.0
        case "knn" | "probe":
            return float(accuracy[objective]) - TIE_PER_NAT * (1.0 - float(accuracy["cosine"]))
        case "top1" | "agreement":
            agrees = objective == "agreement"
            share = accuracy["agreed"] / accuracy["images"] if agrees else accuracy["top1"]
            return float(share) - TIE_PER_NAT * float(accuracy.get("kl", 0.0))


def best_value(objective: Objective) -> float:
    """Return what nothing can be worth more than."""
    return 0.0 if objective in DISTANCES else 1.0
