"""The reference front: random search and NSGA-II, with many times the budget of any search."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import optuna
import torch

from tests.bench.searching import BATCH, IMAGES, REFERENCE, Bench, hash_weights, worth_of
from tokensearch.costs import costs_from_json, costs_to_json
from tokensearch.costs.sweep import sweep
from tokensearch.front import Point, front
from tokensearch.measure import attention_of, describe_cell
from tokensearch.models import load_model
from tokensearch.policy import ModelSpec, Policy
from tokensearch.runtime import describe
from tokensearch.search import load_space
from tokensearch.search.latency_model import forecast_from_table

EACH = 1500  # evaluations of either
SWEEP_SECONDS = 100.0
POPULATION = 50  # Optuna's own default


def make_reference(answers: Path | None) -> None:
    """Sweep, search twice at once, and write the front of both."""
    table = costs_to_json(_swept())
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = pool.map(_searched, ("random", "nsga2"), (table, table), (answers, answers))
        points = [tuple(point) for part in found for point in part]
    chosen = front([Point(worth_of(kl), ratio) for ratio, kl in points])
    document = {
        "how": f"random search and NSGA-II (population {POPULATION}), {EACH} evaluations each of "
        f"the space `default` (seeds 0), on {IMAGES.search} images, latencies by one cost table",
        "weights": hash_weights(),
        "space": load_space("default").digest,
        "front": [points[place] for place in chosen],
        "costs": table,
    }
    REFERENCE.parent.mkdir(exist_ok=True)
    REFERENCE.write_text(json.dumps(document))


def _swept() -> Any:
    loaded = load_model("demo")
    size = 224
    images = torch.randn(BATCH, 3, size, size)
    cell = describe_cell(
        torch.device("cpu"),
        dtype=torch.float32,
        batch=BATCH,
        resolution=size,
        attention=attention_of(loaded.module),
    )
    return sweep(loaded.module, images=images, cell=cell, seconds=SWEEP_SECONDS)


def _searched(how: str, table: dict[str, Any], answers: Path | None) -> list[tuple[float, float]]:
    """Latency and divergence of every policy that was tried."""
    torch.set_num_threads(1)
    bench = Bench.of(costs_from_json(table), answers)
    evaluator = bench.session("random", 0).evaluator()
    model, ratio = describe(bench.model), forecast_from_table(bench.table).ratio
    found = []
    policies = _drawn(model) if how == "random" else None
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=0),
    )
    for done in range(EACH):
        trial = None if policies else study.ask()
        policy = next(policies) if policies else load_space("default").suggest(trial, model)
        kl = evaluator.score(policy, "search").accuracy.kl
        found.append((ratio(policy), kl))
        if trial is not None:
            study.tell(trial, [worth_of(kl), found[-1][0]])
        if done % 50 == 0:
            print(f"{how} {done} of {EACH}", flush=True)
    return found


def _drawn(model: ModelSpec) -> Iterator[Policy]:
    """Yield schedules drawn at random, each once."""
    space, dice, seen = load_space("default"), Random(0), set[str]()
    while True:
        policy = space.build(
            {name: dice.choice(values) for name, values in space.dimensions(model).items()}, model
        )
        if policy.schedule_hash not in seen:
            seen.add(policy.schedule_hash)
            yield policy
