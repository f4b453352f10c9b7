"""The one training loop: whatever learns is trained by it, and goes on after anything.

A step depends on the plan, the weights before it and its number alone: batches, dropout and mixing
are drawn anew for each by its number. So a training that was killed ends with the bits of one that
was not, on a CPU.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np
import torch
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from tokensearch.data.training import TrainingImages
from tokensearch.errors import TrainingError
from tokensearch.progress import ProgressListener
from tokensearch.tune.checkpoint import (
    Checkpoint,
    TrainingFolder,
    pack_optimizer,
    unpack_optimizer,
)

Precision = Literal["fp32", "bf16", "fp16"]
PRECISIONS: Mapping[Precision, str] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}
LOG_EVERY = 10  # steps
SAVE_S = 30.0  # a training that is killed loses no more than that
LAST_LR = 0.05  # of the first, at the end of the cosine


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how to train."""

    steps: int
    batch: int = 48  # images per step and process
    lr: float = 1e-5
    weight_decay: float = 0.05  # DeiT's; biases and norms have none
    warmup_steps: int = 0
    clip_norm: float = 1.0
    precision: Precision = "fp32"
    ema: float | None = None  # decay of an average of the weights, which is then the result
    mixup: float = 0.0  # alphas
    cutmix: float = 0.0
    seed: int = 0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, and their labels with them."""
        return bool(self.mixup or self.cutmix)


class Method(Protocol):
    """What is trained, and by which loss."""

    @property
    def module(self) -> nn.Module:
        """Has what is trained: its parameters that require gradients. Its forward is called."""
        ...

    def begin_step(self, step: int) -> None:
        """Hear that a step begins, before its pass."""
        ...

    def loss(
        self, forward: Callable[[Tensor], Tensor], batch: "TrainingBatch"
    ) -> dict[str, Tensor]:
        """Return the `loss` of a batch, and parts of it to look at."""
        ...


@dataclass(frozen=True)
class TrainingBatch:
    """One batch on the device."""

    images: Tensor  # (B, 3, rows, columns)
    labels: Tensor | None  # (B,), or of mixed images (B, classes); None where there are none


def check_training(plan: TrainingSettings, device: torch.device) -> None:
    """Refuse what cannot be trained here, before anything is loaded: TrainingError."""
    if find_spec("accelerate") is None:
        raise TrainingError("training needs accelerate; pip install 'tokensearch[tune]'")
    if plan.steps < 1:
        raise TrainingError(f"--steps is {plan.steps}; it must be at least 1")
    if plan.warmup_steps >= plan.steps:
        raise TrainingError(
            f"--warmup is {plan.warmup_steps}; it must be less than the {plan.steps} --steps"
        )
    if plan.mixes and plan.batch % 2:
        raise TrainingError(
            f"--train-batch is {plan.batch}; it must be even where images are mixed in pairs"
        )
    if plan.precision == "fp16" and device.type == "cpu":
        raise TrainingError(
            "--precision is fp16, in which a CPU cannot train; take bf16 or fp32, or a GPU"
        )


class Trainer:
    """One training: its state is what a checkpoint holds."""

    def __init__(
        self,
        method: Method,
        images: TrainingImages,
        plan: TrainingSettings,
        *,
        folder: TrainingFolder,
        classes: int,
    ) -> None:
        from accelerate import Accelerator

        self.method, self.images, self.plan, self.folder = method, images, plan, folder
        self.device = next(method.module.parameters()).device
        check_training(plan, self.device)
        self.accelerator = Accelerator(
            mixed_precision=PRECISIONS[plan.precision],
            cpu=self.device.type == "cpu",
            device_placement=False,
        )
        self.optimizer = self.accelerator.prepare(
            create_optimizer_v2(
                method.module, opt="adamw", lr=plan.lr, weight_decay=plan.weight_decay
            )
        )
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=max(2, plan.steps - plan.warmup_steps),  # timm warns of 1; equal rates
            lr_min=LAST_LR * plan.lr,
            warmup_t=plan.warmup_steps,
            warmup_lr_init=plan.lr / max(1, plan.warmup_steps),
            warmup_prefix=True,
            t_in_epochs=False,
        )
        several = self.accelerator.num_processes > 1
        self.forward = self.accelerator.prepare(method.module) if several else method.module
        average = plan.ema is not None
        self.average = (
            ModelEmaV3(method.module, decay=plan.ema, use_warmup=True) if average else None
        )
        self.mix = (
            Mixup(plan.mixup, plan.cutmix, label_smoothing=0.0, num_classes=classes)
            if plan.mixes
            else None
        )
        self.step = 0

    def run(self, watcher: ProgressListener) -> None:
        """Train to the end, from the last checkpoint if there is one.

        TrainingError where a loss or a gradient is not finite; the last good checkpoint stays.
        """
        self._load()
        watcher.stage("training", unit="steps")
        board, began_at, began_s = self._open_board(), self.step, perf_counter()
        saved_s = began_s
        self.method.module.train()
        while self.step < self.plan.steps:
            figures = self._update()
            self.step += 1
            now_s = perf_counter()
            done, last = self.step - began_at, self.step == self.plan.steps
            left_s = (now_s - began_s) / done * (self.plan.steps - self.step)
            watcher.progress(
                done=self.step,
                total=self.plan.steps,
                seconds_left=left_s,
                text=f"loss {figures['loss']:.4f}",
            )
            if last or self.step % LOG_EVERY == 0:
                images = done * self.plan.batch * self.accelerator.num_processes
                speed = images / (now_s - began_s)
                self._log(board, {**figures, "images_per_s": speed})
            if last or now_s - saved_s > SAVE_S:
                self._save()
                saved_s = now_s
        if board is not None:
            board.close()
        self.method.module.eval()

    @property
    def result(self) -> nn.Module:
        """What was trained, or its average over the steps."""
        return self.method.module if self.average is None else self.average.module

    def _update(self) -> dict[str, float]:
        """Take one step; return its figures."""
        draw_by(self.plan.seed, self.step)
        self.scheduler.step_update(self.step)
        self.method.begin_step(self.step)
        batch = self._draw()
        with self.accelerator.autocast():
            losses = self.method.loss(self.forward, batch)
        self._check("loss", float(losses["loss"].detach()))
        self.optimizer.zero_grad()
        self.accelerator.backward(losses["loss"])
        norm = self.accelerator.clip_grad_norm_(self._trained(), self.plan.clip_norm)
        if self.plan.precision != "fp16":  # whose scaler leaves such steps out
            self._check("gradient", float(norm))
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.method.module, step=self.step + 1)
        figures = {name: float(value.detach()) for name, value in losses.items()}
        return {**figures, "gradient": float(norm), "lr": self.optimizer.param_groups[0]["lr"]}

    def _draw(self) -> TrainingBatch:
        """Draw the batch of this step, and of this process."""
        number = self.step * self.accelerator.num_processes + self.accelerator.process_index
        images, labels = self.images.draw(number, self.plan.batch)
        images = images.to(self.device)
        if not self.images.labelled:
            return TrainingBatch(images, None)
        labels = labels.to(self.device)
        return TrainingBatch(*((images, labels) if self.mix is None else self.mix(images, labels)))

    def _check(self, what: str, value: float) -> None:
        if not isfinite(value):
            raise TrainingError(
                f"the {what} of step {self.step} is {value}; the last good checkpoint is "
                f"{self.folder.checkpoint}; train with a lower --lr, into another --out"
            )

    def _trained(self) -> Iterator[nn.Parameter]:
        return (value for value in self.method.module.parameters() if value.requires_grad)

    def _log(self, board: Any, figures: Mapping[str, float]) -> None:
        if board is not None:
            self.folder.add_line({"step": self.step, **figures})
            for name, value in figures.items():
                board.add_scalar(name, value, self.step)

    def _open_board(self) -> Any:
        """Open what the main process writes figures to; None in others."""
        if not self.accelerator.is_main_process:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder.tensorboard), purge_step=self.step + 1)

    def _save(self) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = dict(self._named())
        tensors |= pack_optimizer(self.optimizer)
        scaler = self.accelerator.scaler
        numbers = {} if scaler is None else {"scaler": scaler.state_dict()}
        self.folder.save(Checkpoint(self.step, tensors, numbers))

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """What changes, and the averages of it, as a checkpoint names them."""
        yield from ((f"model.{name}", it) for name, it in state_of(self.method.module))
        if self.average is not None:
            yield from ((f"average.{name}", it) for name, it in state_of(self.average.module))

    def _load(self) -> None:
        checkpoint = self.folder.load(self.device)
        self.accelerator.wait_for_everyone()
        if checkpoint is None:
            self._save()  # a first step that fails has something to go on from
            return
        self.step = checkpoint.step
        with torch.no_grad():
            for name, value in self._named():
                value.copy_(self.folder.take(checkpoint, name))
        unpack_optimizer(self.optimizer, checkpoint.tensors)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(checkpoint.numbers["scaler"])
        self.folder.cut_lines(self.step)


def state_of(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what a step may change of a module, by name: norms of batches have buffers."""
    yield from ((name, it) for name, it in module.named_parameters() if it.requires_grad)
    yield from module.named_buffers()


def draw_by(seed: int, step: int) -> None:
    """Have everything that is drawn from now on follow from the number of a step."""
    own = int(np.random.SeedSequence((seed, step)).generate_state(1)[0])
    torch.manual_seed(own)
    np.random.seed(own)  # timm's Mixup draws from it
