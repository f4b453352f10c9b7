"""A policy judged on a torch Dataset of your own, as `tokensearch evaluate` judges it.

    python -m examples.own_dataset

A folder with a folder of images per class needs no code: `--data FOLDER`.
"""

import sys

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import tokensearch
from tokensearch.data.splits import PURPOSES, Split, Splits
from tokensearch.evaluation.evaluator import PolicyEvaluator, ScoredPolicy
from tokensearch.measure import describe_cell
from tokensearch.policy import Policy


class Stripes(Dataset[tuple[Tensor, int]]):
    """Put your own here: an image (3, rows, columns), ready for the model, and its class."""

    def __init__(self, count: int, size: int, first: int = 0) -> None:
        self.count, self.size, self.first = count, size, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % 2
        noise = torch.randn(3, self.size, self.size, generator=_seeded(self.first + index))
        stripes = torch.sin(torch.arange(self.size) * (0.2 + 0.4 * label))
        return stripes + 0.3 * noise, label


def _seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def make_splits(size: int, count: int = 16) -> Splits:
    """Return three sets of images, of which no two share one."""
    parts = {
        purpose: Split(
            purpose,
            Stripes(count, size, first=count * number),
            digest=f"sha256:stripes-{size}-{number}",  # another name for other images
            labelled=True,
            classes=2,
        )
        for number, purpose in enumerate(PURPOSES)
    }
    return Splits("stripes", **parts)


def judge(model: nn.Module, policy: Policy, size: int) -> ScoredPolicy:
    """Return the accuracy of a policy, alone and compared with the model's own."""
    cell = describe_cell(torch.device("cpu"), torch.float32, batch=4, resolution=size)
    evaluator = PolicyEvaluator(model, make_splits(size), cell, seed=0)
    return evaluator.score(policy, "report")


if __name__ == "__main__":
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", num_classes=2).eval()
    scored = judge(vit, tokensearch.preset("topk-0.5", vit), size=224)
    sys.stdout.write(f"{scored.accuracy}\n{scored.paired}\n")
