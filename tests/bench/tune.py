"""What training wins on the bundled model, where reduction hurts: few tokens, early blocks.

    python -m tests.bench tune [--parts weights thresholds merger] [--json] [--store NAME]

Figures are of `select`, which no training sees and nothing is chosen on; p-values are exact paired
tests against the row before. Each part takes minutes on two cores.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tests.bench.results import add_output, collect
from tokensearch.data.bundled import bundled_splits
from tokensearch.data.splits import Sizes
from tokensearch.data.training import SplitSource, TrainingImages, training_images
from tokensearch.evaluation.evaluator import PolicyEvaluator, spread_of_counts
from tokensearch.measure import describe_cell
from tokensearch.models import load_model, resolve_model
from tokensearch.policy import Merger, Policy, Prune, mac_share
from tokensearch.runtime import describe
from tokensearch.tune.budget import MacBudget
from tokensearch.tune.changes import ChangedAccuracy
from tokensearch.tune.checkpoint import TrainingFolder
from tokensearch.tune.distillation import TrainingJob, make_distillation
from tokensearch.tune.learned_merger import tune_merger
from tokensearch.tune.learned_thresholds import find_thresholds
from tokensearch.tune.loop import TrainingSettings
from tokensearch.tune.thresholds import freeze
from tokensearch.tune.weights import tune_weights

SIZES = Sizes(400, 400, 1)
BATCH = 8
BUDGET = 0.28  # of the multiply-accumulates
HARD = ((0, 8), (1, 4), (2, 2))  # blocks and patch tokens left: three in four are still right


class Silent:
    """A listener that says nothing."""

    def stage(self, title: str, *, unit: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        pass

    def caution(self, text: str) -> None:
        pass


def main(arguments: list[str]) -> None:
    """Print one line per result; with --json, one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench tune", description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--steps", type=int, default=None, help="other than each part's own")
    add_output(parser)
    options = parser.parse_args(arguments)
    collect(results(options), options, line)


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the rows of every part."""
    subject = evaluator()
    for name in options.parts:
        start_s = perf_counter()
        for row in PARTS[name](subject, options.steps):
            yield {"part": name, **row, "seconds": round(perf_counter() - start_s, 1)}


def evaluator() -> PolicyEvaluator:
    """The bundled model and its scenes."""
    loaded = load_model(resolve_model("demo"))
    splits = bundled_splits(data_config=loaded.data_config, sizes=SIZES)
    cell = describe_cell(torch.device("cpu"), torch.float32, BATCH, 224)
    return PolicyEvaluator(loaded.module, splits, cell, seed=0)


def scenes(subject: PolicyEvaluator) -> TrainingImages:
    """Scenes of digits that no split shows."""
    config = load_model(resolve_model("demo")).data_config
    source = SplitSource(None, digits=True, sizes=SIZES, seed=0)
    return training_images(None, source, data_config=config, seed=0)


def weights(subject: PolicyEvaluator, steps: int | None) -> Iterator[dict[str, Any]]:
    """Fine-tune all weights under a prune that loses a fifth of what was right."""
    prunes = tuple(Prune(block, keep) for block, keep in HARD)
    policy = Policy(describe(subject.model), prunes)
    settings = TrainingSettings(steps or 150, batch=48, lr=5e-5)
    baseline = subject.score(Policy(policy.model), "select").accuracy
    yield {"what": "baseline", "macs": 1.0, "right": baseline.right, "images": baseline.images}
    result = tune_weights(subject, (policy,), job(subject, settings), Silent())
    yield from rows("weights", policy, result.select[0])


def job(subject: PolicyEvaluator, settings: TrainingSettings) -> TrainingJob:
    """A training in a folder that is thrown away."""
    images = scenes(subject)
    folder = TrainingFolder(Path(tempfile.mkdtemp(prefix="tokensearch-bench-")))
    return TrainingJob(images, make_distillation(subject, images, None), settings, folder)


def rows(what: str, policy: Policy, changed: ChangedAccuracy) -> Iterator[dict[str, Any]]:
    """Before and after as two rows."""
    for when, score in (("before", changed.before), ("after", changed.after)):
        row = {
            "what": f"{what}: {when}",
            "macs": mac_share(policy),
            "right": score.right,
            "images": score.images,
            "kl": score.kl,
        }
        yield row if when == "before" else {**row, "paired": asdict(changed.paired)}


def line(row: dict[str, Any]) -> str:
    """One result as text."""
    padded = f" ({row['padded']:.3f}x filled up)" if "padded" in row else ""
    parts = [f"{row['what']:<40} {row['macs']:.3f}x{padded}"]
    parts.append(f"{100 * row['right'] / row['images']:6.2f} %")
    if "kl" in row:
        parts.append(f"KL {row['kl']:.4f}")
    if "paired" in row:
        paired = row["paired"]
        parts.append(
            f"gained {paired['only_candidate']}, lost {paired['only_baseline']}, "
            f"p = {paired['p_value']:.2g}"
        )
    parts.append(f"{row['seconds']:.0f} s")
    return "  ".join(parts)


def merger(subject: PolicyEvaluator, steps: int | None) -> Iterator[dict[str, Any]]:
    """Train 8 queries before block 1, with the model frozen, beside a prune to as many tokens."""
    settings = TrainingSettings(steps or 120, batch=32, lr=5e-3)
    result = tune_merger(subject, Merger(0, 8, "merger"), job(subject, settings), Silent())
    yield from rows("merger of 8 after block 0", result.policy, result.select)
    prune = Policy(result.policy.model, (Prune(0, 8, at="block_end"),))
    yield scored(subject, "prune to 8 after block 0", prune)


def thresholds(subject: PolicyEvaluator, steps: int | None) -> Iterator[dict[str, Any]]:
    """Thresholds at 0.28x of the multiply-accumulates, calibrated, learned and as static counts."""
    settings = TrainingSettings(steps or 40, batch=32, lr=0.02)
    result = find_thresholds(
        subject,
        sites=(2, 4, 6),
        budget=MacBudget(describe(subject.model), BUDGET),
        score="head_weighted_class_attention",
        watcher=Silent(),
        training=job(subject, settings),
    )
    assert result.search is not None
    assert result.learned is not None
    learned, kept = result.learned, result.calibrated
    yield from rows("thresholds, on search", learned.policy, result.search)
    yield {
        **scored(
            subject,
            f"thresholds kept ({'learned' if kept is learned else 'calibrated'})",
            kept.policy,
        ),
        "macs": kept.mac_share,
        "padded": kept.padded_mac_share,
        "counts": [asdict(spread) for spread in spread_of_counts(kept.counts)],
    }
    yield scored(subject, "their static twin", freeze(kept.policy))


def scored(subject: PolicyEvaluator, what: str, policy: Policy) -> dict[str, Any]:
    """One policy as it is."""
    score = subject.score(policy, "select").accuracy
    return {
        "what": what,
        "macs": mac_share(policy),
        "right": score.right,
        "images": score.images,
        "kl": score.kl,
    }


PARTS = {"weights": weights, "merger": merger, "thresholds": thresholds}
