"""Losses on a logarithmic scale, on which those of schedules are spread evenly."""

from math import exp, log

from tokensearch.policy import Objective, most

# Divergences far below this, in nats, are all the same to a user; shares, below half an image of
# 500. Added to a loss before its logarithm is taken.
LEAST_LOSS = 1e-3

# The least divergence told from none: schedules that lose nothing to speak of still have an order,
# which says what those that take more tokens will lose. In single precision 1e-9 is near rounding.
FINEST_LOSS = 1e-9


def log_loss_of(worth: float, objective: Objective) -> float:
    """Return the logarithm of what a worth falls short of the most."""
    return log(max(0.0, most(objective) - worth) + finest(objective))


def worth_from(log_loss: float, objective: Objective) -> float:
    """Return the worth that has this log loss."""
    return most(objective) - (exp(log_loss) - finest(objective))


def finest(objective: Objective) -> float:
    """Return the least loss told from none: shares of images have no finer ones."""
    return FINEST_LOSS if objective in {"kl", "ce"} else LEAST_LOSS
