"""What schedules of about half the work cost the bundled model: score, operator and block.

    python -m tests.bench demo [--checkpoint FILE] [--images 2000]

Work is counted in multiply-accumulates of the blocks, accuracy on the `report` split. Published
presets come first, each with random tokens in the place of its own; then one step that leaves half
of the work, with every score, with every operator, and at every block that it fits.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench.results import add_output, collect
from tokensearch.cli.inputs import ModelOptions, load_inputs
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import PRESETS, ModelSpec, Policy, at_random, find, mac_share, preset
from tokensearch.policy.schedules import CONTROL
from tokensearch.policy.steps import SCORES, Pool, Prune, Step

HALF = 0.5
SHARES = (0.40, 0.51)  # of presets: about half, and no more
BLOCK = 3  # in which EViT drops tokens first
# Of the operators those that reach any count in one step.
OPERATORS: dict[str, Step] = {
    "drop": Prune(BLOCK, 1),
    "drop, fuse the rest": Prune(BLOCK, 1, rest="fuse"),
    "pool into ranked": Pool(BLOCK, 1, match="ranked"),
    "pool by k-means": Pool(BLOCK, 1, match="kmeans"),
}


def main(arguments: list[str]) -> None:
    """Print one line per policy; with --json, one JSON document."""
    options = parsed(arguments)
    collect(counts(options), options, line)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench demo", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--images", type=int, default=2000, help="of the report split")
    add_output(parser)
    return parser.parse_args(arguments)


def counts(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield how often each policy is right, and how many points it loses."""
    wanted = ModelOptions(
        model="demo",
        checkpoint=options.checkpoint,
        images=f"1,1,{options.images}",
        device=options.device,
        dtype="float32",
        backend="eager",
        batch_size=options.batch,
    )
    subject = load_inputs(wanted)
    evaluator = PolicyEvaluator(subject.model, subject.splits, subject.cell, seed=0)
    for what, name, policy in policies(evaluator.timing.spec):
        scored = evaluator.score(policy, "report")
        yield {
            "what": what,
            "name": name,
            "share": round(mac_share(policy), 4),
            "images": scored.accuracy.images,
            "right": scored.accuracy.right,
            "lost_points": round(-100 * scored.paired.difference, 2) + 0.0,
            "lost_low": round(-100 * scored.paired.high, 2),
            "lost_high": round(-100 * scored.paired.low, 2),
        }


def policies(model: ModelSpec) -> Iterator[tuple[str, str, Policy]]:
    """Yield what is varied, a name and a policy."""
    yield "baseline", "none", Policy(model)
    names = [name for name in PRESETS if PRESETS[name].made_for(model)]
    for name in ("tome-r15", *names):
        policy = preset(name, model)
        low, high = SHARES
        if find(name).source != CONTROL and low <= mac_share(policy) <= high:
            yield "published", name, policy
            yield "random", f"random-{name}", at_random(policy)
    for score in SCORES:
        yield "score", score, halved(model, Prune(BLOCK, 1, score=score))
    for operator, step in OPERATORS.items():
        yield "operator", operator, halved(model, step)
    for block in range(model.blocks // 2):
        for score in ("class_attention", "random"):
            yield "block", f"{block}, {score}", halved(model, Prune(block, 1, score=score))


def halved(model: ModelSpec, step: Step) -> Policy:
    """Return the policy of one step that keeps as many tokens as half of the work allows."""
    keeps = range(2, model.patch_tokens + 1)
    every = (Policy(model, (replace(step, keep=keep),)) for keep in keeps)
    return [policy for policy in every if mac_share(policy) <= HALF][-1]


def line(result: dict[str, Any]) -> str:
    """One result as people read it."""
    interval = f"[{result['lost_low']:.1f}, {result['lost_high']:.1f}]"
    return (
        f"{result['what']:10s} {result['name']:32s} {result['share']:.3f}x "
        f"{result['right']:5d} of {result['images']}  loses {result['lost_points']:5.2f} points "
        f"{interval}"
    )
