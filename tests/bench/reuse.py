"""Whether scenes of the bundled images that share digits are right together.

    python -m tests.bench reuse [--images 4000]

The `report` split shows 400 digits, each in many scenes. If a digit that is hard to read made all
of its scenes wrong, a mean of scenes would vary more than that of as many strangers, and intervals
would be too narrow. By how much is the design effect: 1 where they are strangers.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import tokensearch
from tests.bench.results import add_output, collect
from tokensearch.data.digits import CLASSES, digit_labels
from tokensearch.data.scene_batches import held_out_scenes
from tokensearch.data.scenes import TALLY, split_placement
from tokensearch.demo import demo_model

Values = npt.NDArray[np.float64]

PURPOSE = "report"
POLICIES = ("topk-0.5", "tome-r16", "tome-dec16")
QUOTED = 576  # images that a run of `make run` quotes accuracy on
BATCH = 50
CPU = torch.device("cpu")


def main(arguments: list[str]) -> None:
    """Print one line per figure; with --json, one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench reuse", description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    add_output(parser)
    options = parser.parse_args(arguments)
    collect(effects(options.images), options, line)


def effects(images: int) -> Iterator[dict[str, Any]]:
    """Yield the design effect of every figure."""
    placed = split_placement(PURPOSE, images, TALLY)[1]
    shares = shared(placed.labels, placed.digits)
    for name, values in figures(images).items():
        effect, error = design_effect(values, placed.labels.numpy(), shares, images=QUOTED)
        yield {
            "figure": name,
            "mean": round(float(values.mean()), 4),
            "images": images,
            "effect": round(effect, 3),
            "standard_error": round(error, 3),
        }


def shared(labels: torch.Tensor, digits: torch.Tensor) -> list[Values]:
    """Return how many digits each pair of scenes shares, (pairs,), by the parts they play.

    A digit of the label's class that is misread costs a scene its answer, another may save it. So
    both of the label's class, both of others, and one of either are told apart.
    """
    own = digit_labels()[digits] == labels[:, None]
    ids, places = torch.unique(digits, return_inverse=True)
    empty = torch.zeros(len(digits), len(ids))
    first, second = (empty.scatter_add(1, places, part.float()) for part in (own, ~own))
    pairs = torch.triu_indices(len(digits), len(digits), 1).unbind()
    mixed = first @ second.T
    every = first @ first.T, second @ second.T, mixed + mixed.T
    return [each[pairs].double().numpy() for each in every]


def figures(images: int) -> dict[str, Values]:
    """Return what the baseline and policies score in each scene: right, loss of it, divergence."""
    model, kept = demo_model(), dict[str, list[torch.Tensor]]()
    with torch.inference_mode():
        for first in range(0, images, BATCH):
            stop = min(first + BATCH, images)
            scenes = held_out_scenes(PURPOSE, stop, TALLY, CPU, first=first)
            pixels = scenes.images / 127.5 - 1
            baseline = model(pixels).log_softmax(1)
            right = (baseline.argmax(1) == scenes.labels).double()
            kept.setdefault("baseline, right", []).append(right)
            for name in POLICIES:
                with tokensearch.applied(model, name):
                    reduced = model(pixels).log_softmax(1)
                change = (reduced.argmax(1) == scenes.labels).double() - right
                loss = (baseline.exp() * (baseline - reduced)).sum(1).double()
                kept.setdefault(f"{name}, change", []).append(change)
                kept.setdefault(f"{name}, divergence", []).append(loss)
    return {name: torch.cat(parts).numpy() for name, parts in kept.items()}


def design_effect(
    values: Values, labels: npt.NDArray[np.int64], shares: list[Values], *, images: int
) -> tuple[float, float]:
    """Return the design effect of the mean of so many images, and its standard error.

    By moments: products of two scenes' residuals grow with the digits that the two share, by a
    slope for each part that digits play, among pairs of equal and of different labels.
    """
    rest = values - np.bincount(labels, values, CLASSES)[labels] / np.bincount(labels)[labels]
    first, second = np.triu_indices(len(values), 1)
    equal, centred = labels[first] == labels[second], np.stack(shares)
    for pairs in (equal, ~equal):
        centred[:, pairs] -= centred[:, pairs].mean(1, keepdims=True)
    inverse = np.linalg.inv(centred @ centred.T)
    slopes = inverse @ (centred @ (rest[first] * rest[second]))
    means, variance = np.array([each.mean() for each in shares]), float(np.mean(rest**2))
    grows = (images - 1) * means
    return 1 + float(slopes @ grows) / variance, float(grows @ inverse @ grows) ** 0.5


def line(result: dict[str, Any]) -> str:
    """One result as people read it."""
    return (
        f"{result['figure']:24s} mean {result['mean']:8.4f}  "
        f"design effect {result['effect']:.2f} +- {result['standard_error']:.2f}"
    )
