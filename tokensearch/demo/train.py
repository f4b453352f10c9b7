"""Train a model to read digit scenes, and to count: the bundled model took two trainings.

    python -m tokensearch.demo.train --out READS
    python -m tokensearch.demo.train --out COUNTS --start READS/demo.safetensors

The first learns to read single digits, the second goes on from its weights and learns which of nine
occurs most often. README.md beside this file says on what machine, for how long, and how well.
`--seconds N` goes by the clock, for GPUs; `--model NAME --seconds N` so trains any of timm's plain
Vision Transformers for both. An auxiliary loss asks every patch token which digit, if any, lies on
it. DIR holds the weights so far (`NAME.safetensors`), a checkpoint from which the same command goes
on, and `training.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.data import resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tokensearch.data.pixels import Preprocessing
from tokensearch.data.scene_batches import Scenes, held_out_scenes, training_scenes
from tokensearch.data.scenes import TALLY, Recipe
from tokensearch.demo.curriculum import COUNTING, QUICK, STAGES, Stage
from tokensearch.demo.student import DEMO, QUIET_BLOCKS, auxiliary_loss, student_of

log = logging.getLogger(__name__)

SEED = 0
WEIGHT_DECAY = 0.05  # DeiT's
CLIP_NORM = 1.0
LOG_EVERY = 50  # steps
SAVE_S = 30.0  # a training that is cut off loses no more than that
BATCH = 50  # images per pass, when answers are counted
PAINTED = 250  # scenes that are painted at once: half a gigabyte
GLANCE = 500  # images that are looked at between stages
CPU = torch.device("cpu")


@dataclass(frozen=True)
class TrainingPlan:
    """What to train, where, and for how long.

    Attributes:
        out: Folder of the files.
        model: `demo`, or a name of timm's.
        device: Where.
        seconds: How long by the clock; None trains the steps of the curriculum.
        batch: Scenes per step; None leaves it to the curriculum.
        held_out: Images of each split that the result is tried on.
        start: Weights that read digits, to go on from: the model learns to count them.
        checkpoint: Write checkpoints beside the weights.
        compile: Have torch compile the blocks.
        quiet_blocks: Blocks after which the class token is asked to know nothing of the image.
    """

    out: Path
    model: str = DEMO
    device: torch.device = CPU
    seconds: float | None = None
    batch: int | None = None
    held_out: int = 2000
    start: Path | None = None
    checkpoint: bool = True
    compile: bool = False
    quiet_blocks: int = QUIET_BLOCKS

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The curriculum."""
        stages = COUNTING if self.start else STAGES if self.seconds is None else QUICK
        return stages if self.batch is None else tuple(replace(s, batch=self.batch) for s in stages)

    @property
    def held_out_recipe(self) -> Recipe:
        """What the scenes that the model is tried on look like: nine digits, or a single one."""
        counts = self.stages[-1].recipe.digits == TALLY.digits
        return TALLY if counts else Recipe()


class Training:
    """The state of a run: what a checkpoint holds."""

    def __init__(self, plan: TrainingPlan) -> None:
        torch.manual_seed(SEED)
        self.plan = plan
        self.student = student_of(plan.model, plan.start).to(plan.device)
        self.student.quiet_blocks = plan.quiet_blocks
        self.average = deepcopy(self.student).eval().requires_grad_(requires_grad=False)
        if plan.compile:
            for block in self.student.model.blocks:
                block.compile(dynamic=False)  # all share the code of one
        self.preprocessing = Preprocessing.of(resolve_data_config({}, model=self.student.model))
        decayed = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)
        self.stage, self.step, self.steps = 0, 0, 0  # steps: of all stages
        self.seconds, self.saved_s = 0.0, 0.0  # spent, and when a checkpoint was last written

    def save(self) -> None:
        """Write a checkpoint that `load` continues from, and the weights so far."""
        if self.plan.checkpoint:
            self._save_checkpoint()
        self.export()
        self.saved_s = self.seconds

    def _save_checkpoint(self) -> None:
        state = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "place": (self.stage, self.step, self.steps, self.seconds),
        }
        partial = self.plan.out / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.plan.out / "checkpoint.pt")

    def load(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        path = self.plan.out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=self.plan.device)
            self.student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.stage, self.step, self.steps, self.seconds = state["place"]
            self.saved_s = self.seconds

    def run(self) -> None:
        """Train to the end of the last stage."""
        while self.stage < len(self.plan.stages):
            self._run_stage(self.plan.stages[self.stage])
            self.stage, self.step = self.stage + 1, 0
        self.save()

    def _run_stage(self, stage: Stage) -> None:
        began, outcomes = time.perf_counter() - self.seconds, []
        while (progress := self._progress(stage)) < 1:
            outcomes.append(self._update(stage, progress))
            self.step, self.steps = self.step + 1, self.steps + 1
            self.seconds = time.perf_counter() - began
            last = self._progress(stage) >= 1
            if last or self.step % LOG_EVERY == 0:
                self._report(stage, torch.stack(outcomes).mean(0).tolist())
                outcomes = []
            if last:
                self._glance(stage)
            elif self.seconds - self.saved_s > SAVE_S:
                self.save()
            self.seconds = time.perf_counter() - began

    def _progress(self, stage: Stage) -> float:
        """Return how much of a stage is done, by its steps or by the clock; 1 and more is all."""
        if self.plan.seconds is None:
            return self.step / stage.steps
        before = sum(earlier.share for earlier in self.plan.stages[: self.stage])
        return max(0.0, self.seconds / self.plan.seconds - before) / stage.share

    def _report(self, stage: Stage, outcome: list[float]) -> None:
        loss, right = outcome
        self._note(stage, loss=round(loss, 4), training_top1=round(right, 4))

    def _glance(self, stage: Stage) -> None:
        """See how the averaged model does on whole scenes that it has not seen."""
        images, labels = self._held_out
        right = right_of(self.average.model, images, labels, self.preprocessing)
        self._note(stage, select_right=right, select_images=len(labels))

    def _note(self, stage: Stage, **figures: float) -> None:
        seconds = round(self.seconds, 2)
        line = json.dumps({"seconds": seconds, "stage": stage.name, "step": self.step, **figures})
        log.info(line)
        with (self.plan.out / "training.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    @cached_property
    def _held_out(self) -> tuple[Tensor, Tensor]:
        return held_out_images("select", min(GLANCE, self.plan.held_out), self.plan)

    def _update(self, stage: Stage, progress: float) -> Tensor:
        """Take one step; return the loss, and the share of scenes named right."""
        device = self.plan.device
        seed = (SEED, self.stage, self.step)
        scenes = training_scenes(
            seed, stage.batch, stage.recipe, size=stage.window_px, device=device
        )
        for group in self.optimizer.param_groups:
            group["lr"] = stage.rate_at(progress, self.step)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss, logits = self._loss(stage, scenes)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP_NORM)
        self.optimizer.step()
        self._follow(stage.average)
        right = (logits.argmax(1) == scenes.labels).float().mean()
        # Not read here: the CPU would wait for the device.
        return torch.stack([loss.detach(), right])

    def _loss(self, stage: Stage, scenes: Scenes) -> tuple[Tensor, Tensor]:
        # Drawn from the place, not from a running generator, so that a resumed run draws the same.
        draws = torch.Generator().manual_seed(SEED + 1_000_000 * self.stage + self.step)
        corner, kept = stage.view(scenes.ink, draws)
        self.student.train()
        images = self.preprocessing.normalised(scenes.images)
        answers = self.student(images, corner, kept)
        loss = F.cross_entropy(answers.logits, scenes.labels)
        loss = loss + stage.auxiliary * auxiliary_loss(scenes, kept, answers)
        return loss + stage.quiet * answers.known, answers.logits

    @torch.no_grad()
    def _follow(self, average: float) -> None:
        decay = min(average, (1 + self.steps) / (10 + self.steps))
        pairs = zip(
            self.average.state_dict().values(), self.student.state_dict().values(), strict=True
        )
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        slow, fast = ([pair[i] for pair in floats] for i in (0, 1))
        get_ema_multi_avg_fn(decay)(slow, fast, self.steps)  # type: ignore[no-untyped-call]

    def export(self) -> VisionTransformer:
        """Write the averaged model as it ships, and return it."""
        model = deepcopy(self.average.model).eval()
        if self.plan.model == DEMO:
            model.patch_embed.fold()
        weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
        partial = self.plan.out / "weights.partial"
        save_file(weights, partial)
        partial.replace(self.plan.out / f"{self.plan.model}.safetensors")
        model.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return model


def held_out_images(purpose: str, count: int, plan: TrainingPlan) -> tuple[Tensor, Tensor]:
    """Return scenes of a split's digits, as the plan's last stage has them, and their labels."""
    recipe = plan.held_out_recipe
    parts = [
        held_out_scenes(purpose, min(first + PAINTED, count), recipe, plan.device, first=first)
        for first in range(0, count, PAINTED)
    ]
    return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])


@torch.inference_mode()
def right_of(model: nn.Module, images: Tensor, labels: Tensor, preprocessing: Preprocessing) -> int:
    """Return how many of the images, uint8, the model names right."""
    parts = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    named = [model(preprocessing.normalised(part)).argmax(1) for part in parts]
    return int((torch.cat(named) == labels).sum())


def main() -> None:
    """Train, or go on training, and print how often the result is right."""
    plan = parsed()
    plan.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # cuDNN's attention plans every shape anew, tens of milliseconds each, and a step drops tokens
    # at random.
    torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    training = Training(plan)
    training.load()
    training.run()
    model = training.export()
    for purpose in ("search", "select", "report"):
        images, labels = held_out_images(purpose, plan.held_out, plan)
        right = right_of(model, images, labels, training.preprocessing)
        log.info("%s: %d of %d right", purpose, right, plan.held_out)


def parsed() -> TrainingPlan:
    """Return the plan that the command line asks for."""
    there = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description="Train a model to read digits, and to count them.")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, weights and log")
    parser.add_argument("--model", default=DEMO, help="demo, or a name of timm's")
    parser.add_argument("--device", type=torch.device, default=torch.device(there))
    parser.add_argument("--seconds", type=float, help="train by the clock, not by steps")
    parser.add_argument("--batch", type=int, help="scenes per step; default: the curriculum's")
    parser.add_argument("--start", type=Path, help="weights that read digits, to go on from")
    parser.add_argument("--quiet-blocks", type=int, default=QUIET_BLOCKS)
    parser.add_argument("--no-checkpoint", dest="checkpoint", action="store_false")
    parser.add_argument("--compile", action="store_true", help="have torch compile the blocks")
    parser.add_argument("--held-out", type=int, default=2000, help="images of each split to try")
    return TrainingPlan(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
