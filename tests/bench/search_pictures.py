"""Samplers on DINOv2 ViT-S/14 and real photographs: measured losses, latencies by a formula.

    python -m tests.bench search --parts pictures --work FOLDER [--store search-pictures]

Every sampler searches as on the landscapes, from an empty study. The loss is the divergence on a
few images of the pictures task, and the latency that of `share_of_work`: the machine's noise plays
no part, and what one sampler has asked of the model is not asked twice. The samplers go on in turn,
a round of evaluations each, until the budget or the time is over. So all have made as many.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import optuna

from tests.bench.landscapes import Landscape, share_of_work, volume_of
from tests.bench.pictures.material import SIZE
from tests.bench.pictures.weights import NAME, classes_of
from tests.bench.search_landscapes import FIRST_SEED, make_objective, make_sampler
from tokensearch.cli.inputs import ModelOptions, load_inputs
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy
from tokensearch.search.sampler.storage import DIRECTIONS
from tokensearch.search.space.suggest import encode

SAMPLERS = ("local", "tpe", "random")
IMAGES = "24,20,20"  # to search on; the other splits are not looked at
ROUND = 10  # evaluations of a sampler before it is the next one's turn


@dataclass
class Contender:
    """One sampler with its study, and what it has evaluated."""

    name: str
    study: optuna.Study
    evaluated: list[Policy] = field(default_factory=list)


def compare_on_pictures(
    checkpoint: Path, data: Path, *, seed: int, budget: int, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield after each round what every sampler has reached, as a share of the best of all."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape, began = measured_landscape(checkpoint, data), time.monotonic()
    contenders = [begin(name, landscape, FIRST_SEED + seed) for name in SAMPLERS]
    while len(contenders[0].evaluated) < budget and time.monotonic() - began < seconds:
        for one in contenders:
            objective = make_objective(landscape, FIRST_SEED + seed, one.evaluated)
            one.study.optimize(objective, n_trials=ROUND)
        points = [[landscape.point(each) for each in one.evaluated] for one in contenders]
        best = volume_of([point for some in points for point in some])
        shares = {
            one.name: round(volume_of(some) / best, 4)
            for one, some in zip(contenders, points, strict=True)
        }
        yield {"seed": seed, "evaluations": len(contenders[0].evaluated), "shares": shares}


def begin(name: str, landscape: Landscape, seed: int) -> Contender:
    """Return a sampler with a study in which the baseline is to be evaluated first."""
    sampler = make_sampler(name, landscape, seed)
    study = optuna.create_study(directions=DIRECTIONS, sampler=sampler)
    space, model = landscape.space, landscape.model
    study.enqueue_trial(encode(space.nearest(Policy(model), model), space.dimensions(model)))
    return Contender(name, study)


def measured_landscape(checkpoint: Path, data: Path) -> Landscape:
    """Return the task as a landscape whose loss is measured."""
    wanted = ModelOptions(
        model=NAME,
        checkpoint=checkpoint,
        img_size=str(SIZE),
        model_kwargs=[f"num_classes={classes_of(checkpoint)}"],
        data=str(data),
        device="cpu",
        images=IMAGES,
    )
    subject = load_inputs(wanted)
    evaluator = PolicyEvaluator(subject.model, subject.splits, subject.cell, 0)

    @cache
    def loss(policy: Policy) -> float:
        return max(0.0, evaluator.score(policy, "search").accuracy.divergence)

    return Landscape("pictures", evaluator.timing.spec, loss, share_of_work)


def line(row: dict[str, Any]) -> str:
    """One round as people read it."""
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["shares"].items())
    return f"pictures, seed {row['seed']}, {row['evaluations']} evaluations each: {shares}"
