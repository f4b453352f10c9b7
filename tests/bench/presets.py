"""The published presets on DeiT-S, each timed in turn with the baseline.

Weights are random: they do not change how long a pass takes.
"""

import argparse
import copy
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

import timm
import torch

from tests.bench.results import add_output, collect
from tokensearch import applied
from tokensearch.measure import MachineMonitor, TimingBudget, clock_for, compare, describe_cell
from tokensearch.policy import find
from tokensearch.records.measurements import Backend, to_json
from tokensearch.runtime import describe, with_backend

MODEL = "deit_small_patch16_224"
# One of each operator; each takes its seconds at every batch.
SHORT = ("none", "last-cls", "tome-r13", "ppt-r50", "ppt-r50-prune", "evit-0.7", "diffrate-s-2.9")


def main(arguments: list[str]) -> None:
    """Print one line per preset and batch; with --json, one JSON document."""
    options = parsed(arguments)
    collect(timings(options), options, line)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench presets", description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="eager", choices=get_args(Backend))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=6.0, help="per preset and batch")
    parser.add_argument("--presets", nargs="+", default=None, help="their names")
    add_output(parser)
    return parser.parse_args(arguments)


def timings(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a result per batch and preset: those asked for, or the short list's that fit."""
    kind, place = getattr(torch, options.dtype), torch.device(options.device)
    model = timm.create_model(options.model).eval().to(place, kind)
    candidate, clock = copy.deepcopy(model), clock_for(place)
    spec = describe(model)
    presets = options.presets or [name for name in SHORT if find(name).made_for(spec)]
    budget = TimingBudget(
        warmup=3, first_look=20, max_rounds=200, seconds=options.seconds, precision=0.005
    )
    for batch in options.batch:
        images = torch.randn(batch, *model.pretrained_cfg["input_size"]).to(place, kind)
        cell = describe_cell(place, kind, batch, images.shape[-1], backend=options.backend)
        with torch.inference_mode():
            baseline = partial(with_backend(model, options.backend, images), images)
        for preset in presets:
            with torch.inference_mode(), applied(candidate, preset):
                run = partial(with_backend(candidate, options.backend, images), images)
                comparison = compare(
                    baseline, run, clock=clock, budget=budget, watch=MachineMonitor(place)
                )
            yield {
                "model": options.model,
                "preset": preset,
                "cell": to_json(cell),
                "comparison": to_json(comparison),
            }


def line(result: dict[str, Any]) -> str:
    """One result as people read it."""
    found, batch = result["comparison"], result["cell"]["batch"]
    interval = f"{found['ratio']:.3f}x [{found['low']:.3f}, {found['high']:.3f}]"
    cautions = ", ".join(found["cautions"])
    name = f"{result['model']} batch {batch:3d}  {result['preset']:16s}"
    return f"{name} {interval} {found['verdict']} {cautions}"
