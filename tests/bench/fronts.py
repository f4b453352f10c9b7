"""The fronts that searches found, held against every published preset: latency and accuracy of all.

    python -m tests.bench fronts --checkpoint FILE --batch 1 64 --front 'runs/{batch}/front.json'

At each batch, the policies of that search's front and all presets that fit the model are timed in
rounds beside the baseline; accuracies are counted once, on the `report` split, for they
belong to no batch. A front that is not there is said to be missing, and the presets stand alone.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, get_args

from tests.bench.results import add_output, collect
from tokensearch.cli.inputs import ModelOptions, load_inputs
from tokensearch.errors import PolicyError, TokensearchError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import MAX_TOGETHER, PolicyTimer
from tokensearch.front import Point, dominates, hypervolume
from tokensearch.measure import TimingBudget
from tokensearch.policy import PRESETS, ModelSpec, Policy, load_set, preset
from tokensearch.records.measurements import Accuracy, Backend, Comparison, to_json
from tokensearch.report.text import short

MODEL = "deit_small_patch16_224"
MIN_ROUNDS, MAX_ROUNDS = 8, 40
# Hypervolumes count what is faster than the baseline and loses at most so much, as a share
# of that rectangle: 1 would be no time at no loss.
WORST_LOSS = 0.1


@dataclass(frozen=True)
class Entry:
    """A policy with all that is known of it."""

    name: str
    found: bool  # by a search; else published
    comparison: Comparison
    accuracy: Accuracy

    @property
    def point(self) -> Point:
        return Point(self.accuracy.top1, self.comparison.ratio)

    def beats(self, other: "Entry") -> bool:
        return dominates(self.point, other.point)

    def surely_beats(self, other: "Entry") -> bool:
        """Whether it also is faster by intervals that are apart."""
        return self.beats(other) and self.comparison.high < other.comparison.low


def main(arguments: list[str]) -> None:
    """Print one line per policy and batch; with --json, one JSON document."""
    options = parsed(arguments)
    collect(results(options), options, lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench fronts", description=__doc__)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--images", type=int, default=1000, help="that accuracy is counted on")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="eager", choices=get_args(Backend))
    parser.add_argument("--batch", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=10.0, help="of passes, per batch")
    parser.add_argument("--front", required=True, help="a file, {batch} in its name")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="their names")
    add_output(parser)
    return parser.parse_args(arguments)


def results(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what a front is worth against the presets, per batch."""
    evaluator = evaluator_for(options)
    published = presets(options.presets, evaluator.timing.spec)
    for batch in options.batch:
        found, where = front(Path(options.front.format(batch=batch)))
        timing = timing_for(evaluator, batch)
        policies = {**published, **found}
        times, untimed = timed(timing, list(policies.values()), options.seconds)
        entries = [
            Entry(name, name in found, times[policy], evaluator.score(policy, "report").accuracy)
            for name, policy in policies.items()
            if policy in times
        ]
        outcome = weighed(entries, evaluator.score(Policy(timing.spec), "report").accuracy)
        yield {
            "model": options.model,
            "cell": to_json(timing.cell),
            "front": where,
            "said": said(outcome) if found else f"presets alone, {where}",
            "untimed": {n: untimed[p] for n, p in policies.items() if p in untimed},
            **outcome,
        }


def evaluator_for(options: argparse.Namespace) -> PolicyEvaluator:
    wanted = ModelOptions(
        model=options.model,
        checkpoint=options.checkpoint,
        data=options.data,
        device=options.device,
        dtype=options.dtype,
        backend=options.backend,
        batch_size=1,
        images=f"1,1,{options.images}",
    )
    subject = load_inputs(wanted)
    return PolicyEvaluator(subject.model, subject.splits, subject.cell, seed=0)


def timing_for(evaluator: PolicyEvaluator, batch: int) -> PolicyTimer:
    """The model in the cell of another batch; time does not depend on what images show."""
    own = evaluator.timing
    images = own.images[:1].expand(batch, -1, -1, -1).contiguous()
    return PolicyTimer(own.model, images, replace(own.cell, batch=batch), own.seed)


def presets(names: Sequence[str], model: ModelSpec) -> dict[str, Policy]:
    """Those of the names that fit the model and reduce something."""
    found = {}
    for name in names:
        try:
            policy = preset(name, model)
        except PolicyError:  # made for another model
            continue
        if policy.reduces:
            found[name] = policy
    return found


def front(file: Path) -> tuple[dict[str, Policy], str]:
    """The reducing policies of a front by name, and where it is or why there is none."""
    try:
        policies = load_set(file).policies
    except (TokensearchError, OSError) as error:
        return {}, f"no front in {file}: {error}"
    found = {f"found {short(p.schedule_hash)}": p for p in policies if p.reduces}
    return found, str(file)


def timed(
    timing: PolicyTimer, policies: Sequence[Policy], seconds: float
) -> tuple[dict[Policy, Comparison], dict[Policy, str]]:
    """Time all in rounds; what cannot be run is told apart by halves, and why is said."""
    times: dict[Policy, Comparison] = {}
    untimed: dict[Policy, str] = {}
    count = ceil(len(policies) / MAX_TOGETHER)
    waiting = [list(policies[place::count]) for place in range(count)]
    while waiting:
        some = waiting.pop()
        budget = TimingBudget(
            warmup=2,
            min_rounds=MIN_ROUNDS,
            max_rounds=MAX_ROUNDS,
            seconds=seconds * len(some) / len(policies),
        )
        try:
            found = timing.time_together(some, budget, tell=lambda *_: None)
            times |= zip(some, found, strict=True)
        except (TokensearchError, RuntimeError) as error:
            if len(some) == 1:
                untimed[some[0]] = str(error).splitlines()[0]
            else:
                middle = len(some) // 2
                waiting += [some[:middle], some[middle:]]
    return times, untimed


def weighed(entries: Sequence[Entry], whole: Accuracy) -> dict[str, Any]:
    """Which presets the front leaves without a reason, and the other way round."""
    found = [entry for entry in entries if entry.found]
    published = [entry for entry in entries if not entry.found]
    return {
        "baseline_accuracy": whole.top1,
        "images": whole.images,
        "presets": len(published),
        "presets_beaten": sum(any(f.beats(p) for f in found) for p in published),
        "presets_surely_beaten": sum(any(f.surely_beats(p) for f in found) for p in published),
        "found": len(found),
        "found_beaten": sum(any(p.beats(f) for p in published) for f in found),
        "hypervolume_found": volume(found, whole),
        "hypervolume_presets": volume(published, whole),
        "policies": [row(e) for e in sorted(entries, key=lambda e: e.comparison.ratio)],
    }


def volume(entries: Sequence[Entry], whole: Accuracy) -> float:
    floor = whole.top1 - WORST_LOSS
    points = [entry.point for entry in entries]
    return hypervolume(points, reference=Point(floor, 1.0)) / WORST_LOSS


def row(entry: Entry) -> dict[str, Any]:
    comparison, accuracy = entry.comparison, entry.accuracy
    return {
        "name": entry.name,
        "found": entry.found,
        "ratio": comparison.ratio,
        "low": comparison.low,
        "high": comparison.high,
        "median_ms": comparison.candidate.median_ms,
        "cautions": list(comparison.cautions),
        "accuracy": accuracy.top1,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "kl": accuracy.kl,
    }


def said(outcome: Mapping[str, Any]) -> str:
    """The outcome in a sentence."""
    return (
        f"the front beats {outcome['presets_beaten']} of {outcome['presets']} presets "
        f"({outcome['presets_surely_beaten']} by intervals apart), they beat "
        f"{outcome['found_beaten']} of its {outcome['found']} policies; hypervolume "
        f"{outcome['hypervolume_found']:.3f} against {outcome['hypervolume_presets']:.3f}"
    )


def lines(result: Mapping[str, Any]) -> str:
    """One batch as people read it."""
    head = f"{result['model']} batch {result['cell']['batch']}: {result['said']}"
    return "\n".join([head, *(line(one) for one in result["policies"])])


def line(one: Mapping[str, Any]) -> str:
    interval = f"{one['ratio']:.3f}x [{one['low']:.3f}, {one['high']:.3f}]"
    return f"  {one['name']:22s} {interval} {one['accuracy']:.2%} {', '.join(one['cautions'])}"
