from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tokensearch.data import bundled
from tokensearch.data.bundled import bundled_splits
from tokensearch.data.scenes import TALLY, scenes_digest, split_placement, split_scenes
from tokensearch.data.splits import PURPOSES, Sizes
from tokensearch.stats.proportions import wilson

CONFIG: dict[str, Any] = {
    "input_size": (3, 224, 224),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}


def test_scenes_are_the_bundled_ones_normalised() -> None:
    made = bundled_splits(data_config=CONFIG, sizes=Sizes(3, 1, 1))

    images, labels = next(made.search.batches(3))

    scenes, digits = split_scenes("search", 3, size=224)
    assert torch.equal(labels, digits)
    assert torch.allclose(images, scenes / 127.5 - 1, atol=1e-6)


def test_scenes_carry_their_own_digest() -> None:
    made = bundled_splits(data_config=CONFIG, sizes=Sizes(3, 4, 5))

    digests = [made.of(purpose).digest for purpose in PURPOSES]

    assert digests == [scenes_digest(p, n, 224) for p, n in zip(PURPOSES, (3, 4, 5), strict=True)]
    assert made.labelled
    assert made.name == "digit scenes"


def test_only_scenes_that_are_looked_at_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[range] = []

    def counted(purpose: str, count: int, *, size: int, first: int = 0) -> tuple[Tensor, Tensor]:
        drawn.append(range(first, count))
        return split_scenes(purpose, count, size=size, first=first)

    monkeypatch.setattr(bundled, "split_scenes", counted)
    made = bundled_splits(data_config=CONFIG, sizes=Sizes(3, 4, 2000))

    made.report.part(5, 7)
    made.report.part(5, 7)

    assert drawn == [range(5, 6), range(6, 7)]


def test_the_interval_of_an_accuracy_covers_what_other_digits_would_give() -> None:
    split = bundled_splits(data_config=CONFIG, sizes=Sizes(1, 1, 576)).report
    digits = split_placement("report", 576, TALLY)[1].digits
    random, share, trials = np.random.default_rng(0), 0.87, 600
    effect = 1 + split.correlation * 575
    # Of what sets scenes apart, digits explain what gives right answers the split's correlation.
    does = (share * (1 - share) * split.correlation * 400 / 81) ** 0.5
    plain = honest = 0
    for _ in range(trials):
        chance = share + does * random.standard_normal(1797)[digits].sum(1)
        right = int((random.random(576) < chance).sum())
        low, high = wilson(right, 576)
        plain += low <= share <= high
        low, high = wilson(right / effect, 576 / effect)
        honest += low <= share <= high

    assert plain / trials < 0.93
    assert honest / trials >= 0.93
