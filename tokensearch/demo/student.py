"""What is trained: a vision transformer with three small heads that are thrown away afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tokensearch.data.digits import CLASSES
from tokensearch.data.scene_batches import Scenes
from tokensearch.data.scenes import PATCH_PX
from tokensearch.demo.curriculum import GRID
from tokensearch.demo.model import bare_model, start_positions

DEMO = "demo"
MARK_BLOCK = 2  # the auxiliary loss "digit or not" reads the patch tokens behind this block
QUIET_BLOCKS = 6  # blocks after which the class token is asked to know nothing of the image
INKED = 0.1  # share of a patch that the digit must cover for the patch to be asked for it


@dataclass(frozen=True)
class Answers:
    """What a student says of a batch.

    Attributes:
        logits: (batch, classes), of the class token.
        marks: (batch, tokens), logits: does a digit lie on the patch?
        readings: (batch, tokens, classes + 1), logits: which? The last class is none.
        counts: (batch, classes), of the class token: how many digits of the class are there?
        known: (), how much of the class token differs between images behind `QUIET_BLOCKS`, 0 to 1.
    """

    logits: Tensor
    marks: Tensor
    readings: Tensor
    counts: Tensor
    known: Tensor


class Student(nn.Module):
    """The model and its three auxiliary heads."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.quiet_blocks = QUIET_BLOCKS
        self.model = model
        self.mark = nn.Linear(model.embed_dim, 1)  # does a digit lie on this patch?
        self.read = nn.Linear(model.embed_dim, CLASSES + 1)  # which one? The last class is none
        self.count = nn.Linear(model.embed_dim, CLASSES)  # how many of each are there?

    def forward(self, images: Tensor, corner: tuple[int, int], kept: Tensor) -> Answers:
        """Return what the heads say of the class token and of the patch tokens `kept`.

        Args:
            images: Normalised, (batch, 3, side, side).
            corner: The row and column of the window in the grid of positions.
            kept: int64, (batch, tokens): which patch tokens; all of them must be in order.
        """
        model = self.model
        grid = images.shape[-1] // PATCH_PX
        tokens = model.patch_embed(images) + _positions(model, corner, grid)
        if kept.shape[1] < grid**2:
            tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        prefix = (model.cls_token + model.pos_embed[:, :1]).expand(len(images), -1, -1)
        tokens = torch.cat([prefix, tokens], 1)
        marks, known = tokens, tokens
        for index, block in enumerate(model.blocks):
            tokens = block(tokens)
            if index == MARK_BLOCK:
                marks = self.mark(tokens[:, 1:])[..., 0]
            if index + 1 == self.quiet_blocks:
                known = _known(tokens[:, 0])
        tokens = model.norm(tokens)
        said = tokens[:, 0]
        return Answers(model.head(said), marks, self.read(tokens[:, 1:]), self.count(said), known)


def student_of(name: str, start: Path | None = None) -> Student:
    """Return the student of `demo` or of a name of timm's.

    Args:
        name: Which.
        start: Weights as they ship, to go on from; None starts untrained.

    Raises:
        ValueError: It is no plain Vision Transformer of 14 x 14 patches and a class token.
    """
    student = _untrained(name, norm=start is None)
    if start is not None:
        weights = {name: weight.float() for name, weight in load_file(start).items()}
        student.model.load_state_dict(weights)
    return student


def _untrained(name: str, *, norm: bool) -> Student:
    if name == DEMO:
        return Student(bare_model(norm=norm))
    model = timm.create_model(name, num_classes=CLASSES)
    if not isinstance(model, VisionTransformer) or not _fits(model):
        raise ValueError(
            f"model {name} cannot be trained on digit scenes: it must be a Vision Transformer "
            f"with a class token and {GRID} x {GRID} patches of {PATCH_PX} px"
        )
    model.patch_embed.strict_img_size = False  # it is shown windows of scenes first
    start_positions(model)
    return Student(model)


def _fits(model: VisionTransformer) -> bool:
    positions = model.pos_embed
    return (
        positions is not None
        and model.global_pool == "token"
        and model.cls_token is not None
        and positions.shape[1] == 1 + GRID**2
        and model.patch_embed.grid_size == (GRID, GRID)
    )


def _known(said: Tensor) -> Tensor:
    """Return the root of the share of the class tokens' energy that differs between images."""
    said = said.float()
    share = said.var(0, correction=0).sum() / said.square().mean(0).sum()
    return (share + 1e-8).sqrt()


def _positions(model: VisionTransformer, corner: tuple[int, int], grid: int) -> Tensor:
    table: Tensor = model.pos_embed[:, 1:].unflatten(1, (GRID, GRID))
    row, column = corner
    return table[:, row : row + grid, column : column + grid].flatten(1, 2)


def auxiliary_loss(scenes: Scenes, kept: Tensor, answers: Answers) -> Tensor:
    """Ask patch tokens for the digit on them, and the class token for how many there are of each.

    A patch that the digit barely touches may answer either way.
    """
    ink, classes = (x.flatten(1).gather(1, kept) for x in (scenes.ink, scenes.classes))
    inked = ink > INKED
    sure = inked | (ink == 0)
    # Weights and not an index, which would have the CPU wait for the device.
    marking = F.binary_cross_entropy_with_logits(
        answers.marks, inked.to(answers.marks.dtype), weight=sure, reduction="sum"
    )
    targets = torch.where(inked, classes, CLASSES).masked_fill(~sure, -100)
    reading = F.cross_entropy(answers.readings.flatten(0, 1), targets.flatten())  # -100: left out
    counting = F.mse_loss(answers.counts.float(), scenes.counts.float())
    return marking / sure.sum() + reading + counting
