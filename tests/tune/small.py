"""A training that takes seconds: a ViT of 16 patch tokens, crops of photographs, any labels."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from tests.cells import CELL
from tests.search import tiny
from tokensearch.data.photos import photo_splits
from tokensearch.data.splits import Sizes, Splits
from tokensearch.data.training import TrainingImages
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy, Prune
from tokensearch.runtime import describe
from tokensearch.tune import loop
from tokensearch.tune.checkpoint import TrainingFolder
from tokensearch.tune.distillation import TrainingJob, make_distillation
from tokensearch.tune.loop import TrainingSettings

Result = TypeVar("Result")


def model(**changes: object) -> nn.Module:
    """The factory that `--model tests.tune.small:model` calls: its answers differ."""
    made = tiny.model(depth=4, **changes)
    torch.manual_seed(0)
    for parameter in made.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return made


def evaluator(own: nn.Module | None = None) -> PolicyEvaluator:
    return PolicyEvaluator(model() if own is None else own, splits(), CELL, seed=0)


@cache
def splits() -> Splits:
    return photo_splits(data_config=tiny.CONFIG, sizes=Sizes(24, 24, 20), seed=0)


CROPS = 96


@cache
def crops() -> Tensor:
    """Others than those of the splits."""
    sizes = Sizes(CROPS, 1, 1)
    return photo_splits(data_config=tiny.CONFIG, sizes=sizes, seed=1).search.part(0, CROPS)[0]


def images(*, labelled: bool = False) -> TrainingImages:
    def draw(step: int, count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(CROPS, (count,), generator=torch.Generator().manual_seed(step))
        return crops()[chosen], chosen % 5 if labelled else torch.full((count,), -1)

    return TrainingImages("crops", "sha256:0", 5 if labelled else None, draw)


def images_until(last: int) -> TrainingImages:
    """Images whose drawing is interrupted at a step."""
    whole = images()

    def draw(step: int, count: int) -> tuple[Tensor, Tensor]:
        if step == last:
            raise KeyboardInterrupt
        return whole.draw(step, count)

    return replace(whole, draw=draw)


def policy(*keep: int) -> Policy:
    steps = (Prune(block, count) for block, count in enumerate(keep or (6, 3)))
    return Policy(describe(model()), tuple(steps))


class Quiet:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.left: list[float | None] = []

    def stage(self, title: str, *, unit: str = "") -> None:
        self.heard.append(title)

    def note(self, text: str) -> None:
        self.heard.append(text)

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        self.left.append(seconds_left)

    def caution(self, text: str) -> None:
        self.heard.append(text)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """What a training has made, but for what tells the time."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))} | {
        path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))
    }


def train_with_a_cut(
    train: Callable[..., Result], folder: Path, patch: pytest.MonkeyPatch
) -> tuple[Result, Result]:
    """Train whole, and again with an interruption: both are to leave the same bits.

    train  takes the folder of a training, and `own` images
    """
    whole = train(folder / "whole")
    patch.setattr(loop, "SAVE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        train(folder / "cut", own=images_until(5))
    again = train(folder / "cut")
    assert bytes_of(folder / "cut") == bytes_of(folder / "whole")
    return whole, again


def training(
    folder: Path,
    subject: PolicyEvaluator,
    plan: TrainingSettings,
    *,
    own: TrainingImages | None = None,
    distill: float | None = None,
) -> TrainingJob:
    data = own or images()
    distillation = make_distillation(subject, data, distill)
    return TrainingJob(data, distillation, plan, TrainingFolder(folder))
