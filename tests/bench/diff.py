"""Whether ledgers close, and whether a plain loop finds what they say.

    python -m tests.bench diff [--seconds 90] [--case NAME ...] [--json]

Each case is two presets on one model. The ledger is made as `tokensearch diff` makes it. The loop
shares no code with it: two models, called in turn, `perf_counter` around each, medians. Both are
run on this machine, one after the other. Weights are random: time does not depend on them.
"""

import argparse
import json
import random
from collections.abc import Iterator
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import timm
import torch
from torch import nn

from tokensearch import apply, preset
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.measure.allocator import keep_freed_memory
from tokensearch.profiling import ProfilePlan, profile
from tokensearch.records.profile import Profile
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.runtime import describe

# Model, batch, baseline, candidate.
CASES: dict[str, tuple[str, int, str, str]] = {
    "s8-tome": ("deit_small_patch16_224", 8, "none", "tome-r13"),
    "s8-evit": ("deit_small_patch16_224", 8, "none", "evit-0.7"),
    "s8-tome-evit": ("deit_small_patch16_224", 8, "tome-r13", "evit-0.7"),
    "t1-tome": ("deit_tiny_patch16_224", 1, "none", "tome-r13"),
    "s8-itself": ("deit_small_patch16_224", 8, "none", "none"),
}
CLOSED = 0.02  # of the difference: what a ledger must account for, all but
WARMUP = 3
RESAMPLES = 1000


def main(arguments: list[str]) -> None:
    """Print what each ledger says beside the loop; with --json, one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench diff", description=__doc__)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--seconds", type=float, default=90.0, help="of each ledger, of each loop")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    keep_freed_memory()  # or the loop, which comes first, would be of another regime
    results = []
    for result in measured(options.case, options.seconds):
        results.append(result)
        if not options.json:
            print(lines(result), flush=True)
    if options.json:
        print(json.dumps(results, indent=2))


def measured(cases: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Yield every case: the loop first, since a profiler slows down what runs after it."""
    for case in cases:
        name, batch, *presets = CASES[case]
        model, images = timm.create_model(name).eval(), torch.randn(batch, 3, 224, 224)
        ratio, low, high = looped(model, images, presets, seconds)
        found = explained(model, images, presets, seconds)
        yield {
            "case": case,
            "rounds": len(found.baseline.plain.passes_ms),
            "baseline_ms": found.baseline.plain_ms,
            "candidate_ms": found.candidate.plain_ms,
            "difference_ms": found.difference.value,
            "ratio": [found.ratio.value, found.ratio.low, found.ratio.high],
            "by_kind": {
                term.kind: [term.ms.value, term.ms.low, term.ms.high] for term in found.by_kind
            },
            "closing": found.closing,
            "closes": found.closing <= CLOSED,
            "empty": found.empty,
            "loop_ratio": [ratio, low, high],
            "agrees": low <= found.ratio.high and found.ratio.low <= high,
            "words": list(ledger_sentences(found)),
        }


def explained(model: nn.Module, images: torch.Tensor, presets: list[str], seconds: float) -> Ledger:
    """The ledger of two presets, profiled in turn."""
    spec = describe(model)
    cell = describe_cell(images.device, images.dtype, len(images), images.shape[-1])
    names = [f"{place} {name}" for place, name in zip("AB", presets, strict=True)]
    policies = {key: preset(name, spec) for key, name in zip(names, presets, strict=True)}
    plan = ProfilePlan(TimingBudget(warmup=WARMUP, max_rounds=5000, seconds=seconds))
    pair: tuple[Profile, ...] = profile(model, policies, images=images, cell=cell, plan=plan)
    return make_ledger(*pair)


def looped(
    model: nn.Module, images: torch.Tensor, presets: list[str], seconds: float
) -> tuple[float, float, float]:
    """The ratio of medians by a plain loop, and the middle 95 % of its resamples by pairs."""
    models = [apply(timm_twin(model), name) for name in presets]
    taken: list[tuple[float, float]] = []
    with torch.inference_mode():
        for one in models * WARMUP:
            one(images)
        start = perf_counter()
        while perf_counter() - start < seconds:
            taken.append((once(models[0], images), once(models[1], images)))
    drawn = [ratio_of(random.choices(taken, k=len(taken))) for _ in range(RESAMPLES)]
    cuts = quantiles(drawn, n=40)
    return ratio_of(taken), cuts[0], cuts[-1]


def timm_twin(model: nn.Module) -> nn.Module:
    """Another model of the same kind, with weights of its own."""
    return timm.create_model(model.pretrained_cfg["architecture"]).eval()  # type: ignore[index]


def once(model: nn.Module, images: torch.Tensor) -> float:
    start = perf_counter()
    model(images)
    return perf_counter() - start


def ratio_of(taken: list[tuple[float, float]]) -> float:
    return median(b for _, b in taken) / median(a for a, _ in taken)


def lines(result: dict[str, Any]) -> str:
    """One case as people read it."""
    ratio, loop = (
        f"{v:.3f} [{a:.3f}, {b:.3f}]" for v, a, b in (result["ratio"], result["loop_ratio"])
    )
    kinds = ", ".join(
        f"{kind} {value:+.2f} [{low:+.2f}, {high:+.2f}]"
        for kind, (value, low, high) in result["by_kind"].items()
    )
    said = "\n".join(f"    {sentence}" for sentence in result["words"])
    return (
        f"{result['case']:13s} {result['rounds']} rounds  ratio {ratio}, loop {loop}, "
        f"{'agree' if result['agrees'] else 'DISAGREE'}\n"
        f"    {kinds} ms; {'empty' if result['empty'] else 'not empty'}; "
        f"closes to {result['closing']:.1%}\n{said}"
    )
