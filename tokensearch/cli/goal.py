"""What is asked of an answer, and how its outputs are compared: as classes or as embeddings."""

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from typer import BadParameter

from tokensearch.cli.console import caution
from tokensearch.cli.options import MaxDivergenceOption, MaxDropOption, TargetOption
from tokensearch.errors import DataError, ModelError
from tokensearch.policy import EMBEDDING_OBJECTIVES, Goal, Objective, parse_target

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokensearch.data.splits import Splits

TOKENS = 3  # dimensions of what a model returns that hands out its tokens


@dataclass(frozen=True, slots=True)
class GoalOptions:
    """What is asked of the answer: an option per field."""

    latency_target: TargetOption = None
    max_drop: MaxDropOption = None
    max_divergence: MaxDivergenceOption = None

    def goal(self, *, default: str | None = None) -> Goal:
        """Return what is asked for; `default` is the latency where nothing is.

        Raises:
            BadParameter: Nothing is asked for, or a bound is below zero or no number.
            TargetError: The latency cannot be read.
        """
        bounded = self.max_drop is not None or self.max_divergence is not None
        latency = self.latency_target or (None if bounded else default)
        if latency is None and not bounded:
            raise BadParameter("give --latency-target, --max-drop or --max-divergence")
        for name, bound, unit in (
            ("--max-drop", self.max_drop, "points of accuracy"),
            ("--max-divergence", self.max_divergence, "nats"),
        ):
            if bound is not None and not 0 <= bound < inf:
                raise BadParameter(f"{name} is {bound:g}; give 0 or more {unit}")
        drop = None if self.max_drop is None else self.max_drop / 100
        target = None if latency is None else parse_target(latency)
        if target is not None and target.unit == "x" and target.number > 1:
            caution(
                f"--latency-target {target} is slower than the baseline, which meets it as it is; "
                f"ask for less than 1x"
            )
        return Goal(target, drop, self.max_divergence)


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
        f"--objective {objective} needs labels of two classes at least, and the images "
        f"({splits.name}) {have}; give --data a folder of class folders, or take --objective cosine"
    )
