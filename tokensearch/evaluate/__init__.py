"""How right any callable is on a split, with intervals; knows no policies."""

from tokensearch.evaluate.accuracy import Forward, Predictions, accuracy, paired, predict

__all__ = ["Forward", "Predictions", "accuracy", "paired", "predict"]
