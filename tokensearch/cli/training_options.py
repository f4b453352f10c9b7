"""Options of everything that trains, and what they are made into."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from typer import Option

from tokensearch.cli.console import err
from tokensearch.cli.inputs import EvaluationInputs, ModelOptions
from tokensearch.cli.options import DEMO, read_sizes
from tokensearch.data.config import DIGITS

if TYPE_CHECKING:
    from tokensearch.data.training import TrainingImages
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.tune.distillation import TrainingJob
    from tokensearch.tune.loop import TrainingSettings


class Usual(NamedTuple):
    """What a verb does unless it is told otherwise."""

    steps: int
    lr: float


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How long and how to train: an option per field."""

    train_data: Annotated[
        str | None,
        Option(
            "--train-data",
            metavar="DIR",
            help="folder of images to train on, or digits; default: DIR/train of --data, else what "
            "the three splits leave over of it",
        ),
    ] = None
    steps: Annotated[
        int | None, Option("--steps", min=0, max=10**7, metavar="N", help="default: the verb's own")
    ] = None
    train_batch: Annotated[
        int, Option("--train-batch", min=1, max=10**5, metavar="N", help="images per step")
    ] = 48
    lr: Annotated[
        float | None, Option("--lr", min=0.0, metavar="RATE", help="first rate of a cosine")
    ] = None
    weight_decay: Annotated[float, Option("--weight-decay", min=0.0, metavar="DECAY")] = 0.05
    warmup: Annotated[int, Option("--warmup", min=0, metavar="STEPS")] = 0
    distill: Annotated[
        float | None,
        Option(
            "--distill",
            metavar="SHARE",
            help="of the loss that is the divergence from the model's own answers; the rest is "
            "cross-entropy with labels; default: 0.5, and 1 without labels",
        ),
    ] = None
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Option("--precision", help="of passes; weights are fp32")
    ] = "fp32"
    ema: Annotated[
        float | None,
        Option(
            "--ema",
            min=0.0,
            max=1.0,
            metavar="DECAY",
            help="decay of an average of weights, which is kept",
        ),
    ] = None
    mixup: Annotated[
        float, Option("--mixup", min=0.0, metavar="ALPHA", help="alpha; 0.8 in DeiT")
    ] = 0.0
    cutmix: Annotated[
        float, Option("--cutmix", min=0.0, metavar="ALPHA", help="alpha; 1 in DeiT")
    ] = 0.0

    def prepare(
        self,
        wanted: ModelOptions,
        subject: EvaluationInputs,
        evaluator: "PolicyEvaluator",
        *,
        folder: Path,
        usual: Usual,
    ) -> "TrainingJob":
        """Return the training that is asked for; `usual` is what the verb does unless told.

        What cannot be trained is refused here, before anything is run.
        """
        from tokensearch.tune.checkpoint import TrainingFolder
        from tokensearch.tune.distillation import TrainingJob, make_distillation
        from tokensearch.tune.loop import check_training

        plan = self._plan(wanted.seed, usual)
        check_training(plan, next(subject.model.parameters()).device)
        images = self._load_images(wanted, subject)
        err.print(f"images to train on: {images.name}", soft_wrap=True)
        distillation = make_distillation(evaluator, images, self.distill)
        return TrainingJob(images, distillation, plan, TrainingFolder(folder))

    def _plan(self, seed: int, usual: Usual) -> "TrainingSettings":
        from tokensearch.tune.loop import TrainingSettings

        return TrainingSettings(
            usual.steps if self.steps is None else self.steps,
            self.train_batch,
            lr=usual.lr if self.lr is None else self.lr,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup,
            precision=self.precision,
            ema=self.ema,
            mixup=self.mixup,
            cutmix=self.cutmix,
            seed=seed,
        )

    def _load_images(self, wanted: ModelOptions, subject: EvaluationInputs) -> "TrainingImages":
        """Return the images to train on, none of which is measured."""
        from tokensearch.data.splits import Sizes
        from tokensearch.data.training import SplitSource, training_images
        from tokensearch.hugging_face import class_names
        from tokensearch.runtime.host import unwrap

        bundled = wanted.data is None and wanted.images_from is None and subject.name == DEMO
        digits = bundled or (wanted.data == DIGITS and not Path(DIGITS).exists())
        source = SplitSource(
            wanted.data,
            digits,
            Sizes(*read_sizes(wanted.images)),
            wanted.seed,
            wanted.class_map,
            class_names(unwrap(subject.model)),
            wanted.images_from,
        )
        return training_images(
            self.train_data, source, data_config=subject.data_config, seed=wanted.seed
        )
