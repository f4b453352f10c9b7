"""Train the bundled model: `python -m tokensearch.demo.train --out DIR`.

README.md beside this file says on what machine, for how long, and how well; `curriculum` holds
the stages. An auxiliary loss asks every patch token which digit, if any, lies on it; its two small
heads are thrown away.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from tokensearch.data.scene_batches import Scenes, training_scenes
from tokensearch.data.scenes import PATCH_PX, split_scenes
from tokensearch.demo.curriculum import GRID, STAGES, Stage
from tokensearch.demo.model import CLASSES, WIDTH, bare_model

log = logging.getLogger(__name__)

SEED = 0
MARK_BLOCK = 2  # the auxiliary loss "digit or not" reads the patch tokens behind this block
INKED = 0.1  # share of a patch that the digit must cover for the patch to be asked for it
WEIGHT_DECAY = 0.05  # DeiT's
CLIP_NORM = 1.0
EMA_DECAY = 0.998  # about the last 500 steps
LOG_EVERY, SAVE_EVERY = 50, 200


class Student(nn.Module):
    """The model and its two auxiliary heads."""

    def __init__(self) -> None:
        super().__init__()
        self.model = bare_model(norm=True)
        self.mark = nn.Linear(WIDTH, 1)  # does a digit lie on this patch?
        self.read = nn.Linear(WIDTH, CLASSES + 1)  # which one? The last class is none

    def forward(
        self, images: Tensor, corner: tuple[int, int], kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return class logits, marks and readings of the patch tokens `kept`, (batch, tokens).

        `corner` is the row and column of the window in the grid of positions.
        """
        model = self.model
        grid = images.shape[-1] // PATCH_PX
        tokens = model.patch_embed(images) + _positions(model, corner, grid)
        tokens = tokens.gather(1, kept[..., None].expand(-1, -1, WIDTH))
        prefix = (model.cls_token + model.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([prefix, tokens], 1)
        marks = tokens
        for index, block in enumerate(model.blocks):
            tokens = block(tokens)
            if index == MARK_BLOCK:
                marks = self.mark(tokens[:, 1:])[..., 0]
        tokens = model.norm(tokens)
        return model.head(tokens[:, 0]), marks, self.read(tokens[:, 1:])


def _positions(model: VisionTransformer, corner: tuple[int, int], grid: int) -> Tensor:
    table: Tensor = model.pos_embed[:, 1:].unflatten(1, (GRID, GRID))
    row, column = corner
    return table[:, row : row + grid, column : column + grid].flatten(1, 2)


class _Batches(IterableDataset[Scenes]):
    """The batches of a stage from a step on, the same however often training is resumed."""

    def __init__(self, stage: Stage, index: int, start: int) -> None:
        self.stage, self.index, self.start = stage, index, start

    def __iter__(self) -> Iterator[Scenes]:
        torch.set_num_threads(1)
        stage = self.stage
        for step in range(self.start, stage.steps):
            yield training_scenes(
                (SEED, self.index, step), stage.batch, stage.recipe, size=stage.window_px
            )


class Training:
    """The state of a run: what a checkpoint holds."""

    def __init__(self, out: Path) -> None:
        torch.manual_seed(SEED)
        self.out = out
        self.student = Student()
        self.average = deepcopy(self.student).eval().requires_grad_(requires_grad=False)
        decayed = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))
        self.stage, self.step, self.seconds = 0, 0, 0.0

    def save(self) -> None:
        """Write a checkpoint that `load` continues from."""
        state = {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "place": (self.stage, self.step, self.seconds),
        }
        partial = self.out / "checkpoint.partial"
        torch.save(state, partial)
        partial.replace(self.out / "checkpoint.pt")

    def load(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        path = self.out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.student.load_state_dict(state["student"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.stage, self.step, self.seconds = state["place"]

    def run(self) -> None:
        """Train to the end of the last stage."""
        while self.stage < len(STAGES):
            self._run_stage(STAGES[self.stage])
            self.stage, self.step = self.stage + 1, 0
            self.save()

    def _run_stage(self, stage: Stage) -> None:
        dataset = _Batches(stage, self.stage, self.step)
        batches = DataLoader(dataset, batch_size=None, num_workers=1, prefetch_factor=4)
        began, outcomes = time.perf_counter(), []
        for scenes in batches:
            outcomes.append(self._update(stage, scenes))
            self.step += 1
            if self.step % LOG_EVERY == 0 or self.step == stage.steps:
                now = time.perf_counter()
                self.seconds, began = self.seconds + now - began, now
                self._report(stage, torch.tensor(outcomes).mean(0).tolist())
                outcomes = []
            if self.step % SAVE_EVERY == 0:
                self.save()
                self.export()

    def _report(self, stage: Stage, outcome: list[float]) -> None:
        loss, right = outcome
        place = (self.seconds / 60, stage.name, self.step, stage.steps)
        message = "%6.1f min  %-12s %5d/%d  loss %.3f  training top-1 %5.1f %%"
        log.info(message, *place, loss, 100 * right)

    def _update(self, stage: Stage, scenes: Scenes) -> tuple[float, float]:
        """Take one step; return the loss, and the share of scenes named right."""
        for group in self.optimizer.param_groups:
            group["lr"] = stage.rate_at(self.step)
        # Drawn from the place, not from a running generator, so that a resumed run draws the same.
        draws = torch.Generator().manual_seed(SEED + 1_000_000 * self.stage + self.step)
        corner, kept = stage.view(scenes.ink, draws)
        self.student.train()
        logits, marks, readings = self.student(normalised(scenes.images), corner, kept)
        loss = F.cross_entropy(logits, scenes.labels)
        loss = loss + stage.auxiliary * _auxiliary_loss(scenes, kept, marks, readings)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), CLIP_NORM)
        self.optimizer.step()
        self._follow()
        return float(loss.detach()), float((logits.argmax(1) == scenes.labels).float().mean())

    @torch.no_grad()
    def _follow(self) -> None:
        steps = self.step + sum(stage.steps for stage in STAGES[: self.stage])
        decay = min(EMA_DECAY, (1 + steps) / (10 + steps))
        average, student = self.average.state_dict(), self.student.state_dict()
        for slow, fast in zip(average.values(), student.values(), strict=True):
            if slow.is_floating_point():
                slow.lerp_(fast, 1 - decay)

    def export(self) -> VisionTransformer:
        """Write the averaged model as it ships, and return it."""
        model = deepcopy(self.average.model).eval()
        model.patch_embed.fold()
        weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
        save_file(weights, self.out / "demo.safetensors")
        model.load_state_dict({name: weight.float() for name, weight in weights.items()})
        return model


def _auxiliary_loss(scenes: Scenes, kept: Tensor, marks: Tensor, readings: Tensor) -> Tensor:
    """Ask patch tokens for the digit on them.

    A patch that the digit barely touches may answer either way.
    """
    ink = scenes.ink.flatten(1).gather(1, kept)
    inked = ink > INKED
    sure = inked | (ink == 0)
    targets = torch.where(inked, scenes.labels[:, None], CLASSES)
    marking = F.binary_cross_entropy_with_logits(marks[sure], inked[sure].float())
    return marking + F.cross_entropy(readings[sure], targets[sure])


def normalised(images: Tensor) -> Tensor:
    """Return uint8 images as the model takes them: float32, mean and standard deviation 0.5."""
    return images.float().div_(127.5).sub_(1)


@torch.inference_mode()
def count_right(model: nn.Module, purpose: str, count: int, *, batch: int = 50) -> int:
    """Return how many of the first `count` scenes of a split the model names right."""
    images, labels = split_scenes(purpose, count)
    named = [model(normalised(images[i : i + batch])).argmax(1) for i in range(0, count, batch)]
    return int((torch.cat(named) == labels).sum())


def main() -> None:
    """Train, or go on training, and print how often the result is right."""
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoints and weights"
    )
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    training = Training(out)
    training.load()
    training.run()
    model = training.export()
    for purpose in ("search", "select", "report"):
        log.info("%s: %d of 2000 right", purpose, count_right(model, purpose, 2000))


if __name__ == "__main__":
    main()
