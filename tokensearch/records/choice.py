"""What a policy is chosen by, besides its accuracy on `select` and its latency."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChoiceFigures:
    """Of a model that predicts classes."""

    right: str  # images of `select` that it got right: `policy.RightImages.hex`
    kl_low: float  # interval of the mean divergence on `select`, nats
    kl_high: float

    @property
    def divergence(self) -> tuple[float, float]:
        """Interval of the mean divergence."""
        return self.kl_low, self.kl_high


@dataclass(frozen=True, slots=True)
class EmbeddingChoice:
    """Of a model that returns embeddings."""

    right: str  # images of `select` that it got right: `policy.RightImages.hex`
    cosine_low: float  # interval of the mean cosine on `select`
    cosine_high: float

    @property
    def divergence(self) -> tuple[float, float]:
        """Interval of the mean distance from the baseline's embeddings."""
        return 1.0 - self.cosine_high, 1.0 - self.cosine_low


AnyChoice = ChoiceFigures | EmbeddingChoice
