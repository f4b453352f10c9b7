"""How often timing errs here: a model against itself, and against itself with a little more work.

    python -m tests.bench noise [--repeats 20] [--seconds 6] [--json]

*A/A* times two copies of a model in turn. Whatever is called faster or slower is a false verdict;
at a level of 95 % one in twenty is to be expected.

*Planted* gives the copy extra work after each pass: an MLP like its own, on as many spare tokens as
make up the wanted share. How much that really is, is measured before every comparison, apart from
it: the extra work timed on its own, each time right after a pass, over that pass. The interval
should hold 1 + this share, and the right verdict is "slower". On a GPU work on its own also pays
for its launch, which a pass hides: take a batch of whose pass ten microseconds are a small share.

Weights are random: they do not change how long a pass takes.
"""

import argparse
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tests.bench.results import add_output, collect
from tokensearch.measure import (
    Clock,
    MachineMonitor,
    Run,
    TimingBudget,
    attention_of,
    clock_for,
    compare,
    describe_cell,
)
from tokensearch.records.comparability import BaselineDrift
from tokensearch.records.measurements import Backend, Cell, Comparison, to_json
from tokensearch.runtime import with_backend

MODEL = "deit_tiny_patch16_224"
SHARE = 0.02
SHARE_PASSES = 25  # whose median is known to some percent: of two percent that is enough
SHARE_WARMUP = 3
FIRST_TOKENS, MOST_TOKENS = 64, 2**16
APPROACHES = 4  # time is no straight line of tokens


class Planted(nn.Module):
    """A model that does some more work after each pass; nothing reads what comes of it."""

    def __init__(self, model: nn.Module, mlp: nn.Module, tokens: Tensor) -> None:
        super().__init__()
        self.model, self.mlp, self.tokens = model, mlp, tokens  # (1, tokens, width)

    def forward(self, images: Tensor) -> object:
        out = self.model(images)
        self.mlp(self.tokens)
        return out


@dataclass(frozen=True)
class Result:
    """One comparison, and how much slower its candidate is known to be."""

    planted: float  # share of a pass; 0 of an A/A comparison
    comparison: Comparison

    @property
    def wrong(self) -> bool:
        """Whether a difference is claimed that is not there."""
        claims = ("faster",) if self.planted else ("faster", "slower")
        return self.comparison.verdict in claims

    @property
    def holds(self) -> bool:
        return self.comparison.low <= 1 + self.planted <= self.comparison.high


def main(arguments: list[str]) -> None:
    """Print one line per comparison and a summary; with --json, one JSON document."""
    options = parsed(arguments)
    torch.set_num_threads(options.threads)
    model, images = prepared(options)
    with torch.inference_mode():
        cell = cell_of(model, images, options)
        found = collect(
            comparisons(model, images, options),
            options,
            line,
            lambda results: document(results, cell, options),
        )
    if not options.json:
        print(json.dumps(summary(found), indent=2))


def document(results: Sequence[Result], cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    listed = [{"planted": r.planted, "comparison": to_json(r.comparison)} for r in results]
    return {"model": options.model, "cell": to_json(cell), **summary(results), "results": listed}


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench noise", description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="eager", choices=["eager", "cudagraph"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--cache", default="warm", choices=["warm", "flushed"])
    parser.add_argument("--share", type=float, default=SHARE, help="of a pass, to be planted")
    parser.add_argument("--repeats", type=int, default=20, help="of either kind")
    parser.add_argument("--seconds", type=float, default=6.0, help="of passes per comparison")
    add_output(parser)
    return parser.parse_args(arguments)


def prepared(options: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    place = {"device": options.device, "dtype": getattr(torch, options.dtype)}
    model = timm.create_model(options.model).eval().to(**place)
    return model, torch.randn(options.batch, *model.pretrained_cfg["input_size"]).to(**place)


def cell_of(model: nn.Module, images: Tensor, options: argparse.Namespace) -> Cell:
    return describe_cell(
        images.device,
        dtype=images.dtype,
        batch=options.batch,
        resolution=images.shape[-1],
        backend=options.backend,
        cache=options.cache,
        attention=attention_of(model),
    )


def comparisons(model: nn.Module, images: Tensor, options: argparse.Namespace) -> Iterator[Result]:
    """Yield A/A and planted comparisons by turns, so that both meet the same moments."""
    clock, twin = clock_for(images.device, options.cache), copy.deepcopy(model)
    run_of = partial(backed_run, backend=options.backend)
    baseline, candidate = run_of(model, images), run_of(twin, images)
    mlp, tokens = spare(twin, images, clock, options)
    slower, work = run_of(Planted(twin, mlp, tokens), images), work_of(mlp, tokens, run_of)
    budget = TimingBudget(warmup=3, first_look=30, max_rounds=1000, seconds=options.seconds)
    for repeat in range(options.repeats):
        share = share_of(work, candidate, clock)
        for run, planted in ((candidate, 0.0), (slower, share)):
            watch = MachineMonitor(images.device)
            found = compare(baseline, run, clock=clock, budget=budget, seed=repeat, watch=watch)
            yield Result(planted, found)


def backed_run(model: nn.Module, images: Tensor, backend: Backend) -> Run:
    return partial(with_backend(model, backend, images), images)


def work_of(mlp: nn.Module, tokens: Tensor, run_of: Callable[[nn.Module, Tensor], Run]) -> Run:
    """The extra work alone; a graph copies its input and output, which are one number here."""
    return run_of(Planted(nn.Identity(), mlp, tokens), tokens.new_zeros(1))


def spare(
    model: Any, images: Tensor, clock: Clock, options: argparse.Namespace
) -> tuple[nn.Module, Tensor]:
    """Return an MLP of the model's, and as many tokens as take it about a share of a pass."""
    run_of = partial(backed_run, backend=options.backend)
    whole, mlp, count = run_of(model, images), copy.deepcopy(model.blocks[0].mlp), FIRST_TOKENS
    for _ in range(APPROACHES):
        tokens = torch.randn(1, count, model.embed_dim).to(images)
        found = share_of(work_of(mlp, tokens, run_of), whole, clock)
        count = min(MOST_TOKENS, max(1, round(count * options.share / found)))
    return mlp, torch.randn(1, count, model.embed_dim).to(images)


def share_of(part: Run, whole: Run, clock: Clock) -> float:
    """Time of a part, right after a whole, over that of the whole."""
    timed = [
        (clock.time_ms(whole), clock.time_ms(part)) for _ in range(SHARE_WARMUP + SHARE_PASSES)
    ]
    wholes_ms, parts_ms = zip(*timed[SHARE_WARMUP:], strict=True)
    return median(parts_ms) / median(wholes_ms)


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Count verdicts, intervals that hold what they should, and cautions."""
    own = [result for result in results if not result.planted]
    planted = [result for result in results if result.planted]
    named = Counter(caution.name.lower() for r in results for caution in r.comparison.cautions)
    return {
        "a_a": {"comparisons": len(own), "false_verdicts": count(own, lambda r: r.wrong)},
        "planted": {
            "comparisons": len(planted),
            "share": median(r.planted for r in planted) if planted else None,
            "found": count(planted, lambda r: r.comparison.verdict == "slower"),
            "wrong_way": count(planted, lambda r: r.wrong),
        },
        "intervals_that_hold_the_truth": count(results, lambda r: r.holds),
        "half_width": median((r.comparison.high - r.comparison.low) / 2 for r in results),
        "baseline_moved": BaselineDrift([r.comparison.baseline for r in results]).moved,
        "cautions": dict(named),
    }


def count(results: Sequence[Result], holds: Callable[[Result], bool]) -> int:
    return sum(holds(result) for result in results)


def line(result: Result) -> str:
    """One comparison as people read it."""
    found = result.comparison
    what = f"planted {result.planted:.2%}" if result.planted else "A/A"
    interval = f"{found.ratio:.4f} [{found.low:.4f}, {found.high:.4f}]"
    pairs = f"{len(found.baseline.passes_ms)} pairs of {found.baseline.median_ms:.2f} ms"
    cautions = ", ".join(caution.name.lower() for caution in found.cautions)
    share = found.conditions.others if found.conditions else None
    others = "others unknown" if share is None else f"others {share:.0%}"
    return f"{what:14s} {interval} {found.verdict:9s} {pairs}, {others}  {cautions}".rstrip()
