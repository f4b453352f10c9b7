"""How a model's outputs are compared: as scores of classes, or as embeddings."""

from typing import TYPE_CHECKING

from tokensearch.errors import DataError, ModelError
from tokensearch.policy import EMBEDDING_OBJECTIVES, Objective

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokensearch.data.splits import Splits

TOKENS = 3  # dimensions of what a model returns that hands out its tokens


def choose_objective(
    asked: Objective | None, name: str, module: "nn.Module", output: "torch.Tensor"
) -> Objective:
    """Return how the model's outputs are compared; refuse features as scores of classes.

    What embeds images by an own head looks like a classifier: `asked` tells the two apart.
    """
    from tokensearch.models import returns_embeddings

    embeds = output.ndim == TOKENS or returns_embeddings(module)
    if asked is None:
        return "cosine" if embeds else "kl"
    if embeds and asked not in EMBEDDING_OBJECTIVES:
        raise ModelError(
            f"--objective is {asked}, but model {name} has no classifier, and its embeddings are "
            f"no scores of classes; take cosine, knn or probe, or give weights with a head by "
            f"--checkpoint FILE"
        )
    return asked


def check_labels(splits: "Splits", objective: Objective) -> None:
    """Refuse to read classes from embeddings where the images have none; DataError."""
    if objective == "cosine" or (splits.labelled and splits.classes != 1):
        return
    have = "have one class" if splits.labelled else "have none"
    raise DataError(
        f"--objective {objective} needs labels of two classes at least, and the {splits.name} "
        f"{have}; give --data a folder of class folders, or take --objective cosine"
    )
