"""The handwritten digits that scenes show, in four parts that share none, and who goes where.

They come with scikit-learn (the UCI optical digits).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

CLASSES = 10
PURPOSES = ("train", "search", "select", "report")
SEED = 20240229
_HELD_OUT_PER_CLASS = {
    "search": 20,
    "select": 20,
    "report": 40,
}  # of about 180 per class; the rest trains
_PARTITION_STREAM = 99  # any number that is not the index of a purpose
_GLYPH_PX = 50  # the 8 x 8 digits, padded to 10 x 10, five times finer
GLYPH_MARGIN = 10 / 8  # side of the padded square over that of the digit


@dataclass(frozen=True)
class Placement:
    """Which digits scenes show, and where.

    Attributes:
        labels: int64, (scenes,): the class that occurs most often.
        digits: int64, (scenes, digits): which of scikit-learn's 1,797.
        cells: int64, (scenes, digits): the cell of the grid that each lies in, row after row.
    """

    labels: Tensor
    digits: Tensor
    cells: Tensor


def placing_draws(tallies: Sequence[Sequence[int]], cells: int) -> int:
    """Return how many uniform numbers `place_digits` needs for a scene."""
    return 1 + CLASSES + sum(tallies[0]) + cells**2


def place_digits(
    draws: Tensor,
    purpose: str,
    tallies: Sequence[Sequence[int]],
    cells: int,
    *,
    labels: Tensor | None = None,
) -> Placement:
    """Return which digits of a purpose each row of draws puts where.

    Args:
        draws: float64, (scenes, `placing_draws`), uniform over 0 to 1.
        purpose: "train", "search", "select" or "report".
        tallies: How often the classes of a scene may occur, e.g. `(3, 1, 1)`: the label's first.
        cells: Cells along a side of the grid; each holds at most one digit.
        labels: int64, (scenes,): the class that shall occur most often; None draws it.
    """
    ranks = torch.tensor([[r for r, n in enumerate(t) for _ in range(n)] for t in tallies])
    shown = ranks.shape[1]
    tally, order, member, site = torch.split(draws, [1, CLASSES, shown, cells**2], 1)
    if labels is not None:
        order = order.scatter(1, labels[:, None], -1.0)  # before all others
    classes = order.argsort(1).gather(1, ranks[(tally[:, 0] * len(ranks)).long()])
    pools, lengths = _pools(purpose)
    digits = pools[classes, (member * lengths[classes]).long()]
    return Placement(classes[:, 0], digits, site.argsort(1)[:, :shown])


@cache
def digit_ids(purpose: str) -> tuple[int, ...]:
    """Return which of scikit-learn's 1,797 digits belong to a purpose, class after class."""
    if purpose not in PURPOSES:
        raise ValueError(f"no such purpose: {purpose!r}; there are {', '.join(PURPOSES)}")
    return tuple(i for label in range(CLASSES) for i in class_ids(purpose, label))


@cache
def class_ids(purpose: str, label: int) -> tuple[int, ...]:
    """Return which of the digits of a class belong to a purpose."""
    members = torch.nonzero(digit_labels() == label).flatten().numpy()
    # Sorted uniform draws, since Generator.permutation may change with numpy (NEP 19).
    draws = np.random.default_rng((SEED, _PARTITION_STREAM, label)).random(len(members))
    shuffled = [int(i) for i in members[np.argsort(draws)]]
    start = 0
    for name, share in _HELD_OUT_PER_CLASS.items():
        if name == purpose:
            return tuple(shuffled[start : start + share])
        start += share
    return tuple(shuffled[start:])


@cache
def _pools(purpose: str) -> tuple[Tensor, Tensor]:
    """Return the digits of each class, (classes, digits), the longest as wide, and how many."""
    pools = [torch.tensor(class_ids(purpose, label)) for label in range(CLASSES)]
    lengths = torch.tensor([len(pool) for pool in pools])
    return torch.nn.utils.rnn.pad_sequence(pools, batch_first=True), lengths


@cache
def _bundled_digits() -> Any:
    return load_digits()


@cache
def digit_labels() -> Tensor:
    """Return which digit each of scikit-learn's 1,797 is, int64."""
    return torch.as_tensor(_bundled_digits().target, dtype=torch.int64)


@cache
def glyphs() -> Tensor:
    """Return the digits, smooth and finer, float32 (1797, 50, 50), 0 to 1."""
    grey = torch.as_tensor(_bundled_digits().images, dtype=torch.float32)[:, None] / 16
    padded = F.pad(grey, (1, 1, 1, 1))
    return F.interpolate(padded, size=_GLYPH_PX, mode="bicubic").clamp_(0, 1)[:, 0]
