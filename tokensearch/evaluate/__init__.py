"""How right any callable is on a split, with intervals; knows no policies."""

from tokensearch.evaluate.accuracy import accuracy, against, paired, per_image
from tokensearch.evaluate.answers import Answers, held_against, joined
from tokensearch.evaluate.predictions import Predictions, predicted

__all__ = [
    "Answers",
    "Predictions",
    "accuracy",
    "against",
    "held_against",
    "joined",
    "paired",
    "per_image",
    "predicted",
]
