"""The loss that everything is trained by: to say what the model itself says, and what is right."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokensearch.data.training import TrainingImages
from tokensearch.errors import DataError, TrainingError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import EMBEDDING_OBJECTIVES, Policy
from tokensearch.tune.checkpoint import TrainingFolder
from tokensearch.tune.loop import Method, Trainer, TrainingBatch, TrainingSettings

EVEN = 0.5  # AS-ViT's weight of its divergence; the rest is by labels


@dataclass(frozen=True)
class Distillation:
    """Divergence from a teacher's answers, and cross-entropy with labels."""

    teacher: nn.Module  # in evaluation mode, following no policy
    share: float  # of the divergence; the rest is cross-entropy
    embeds: bool  # outputs are embeddings: the divergence is 1 minus the cosine

    def loss(self, output: Tensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the `loss`, and its parts.

        output  (B, classes), or embeddings (B, width)
        """
        like = next(self.teacher.parameters())
        with torch.no_grad():
            wanted = self.teacher(batch.images.to(like.dtype))
        divergence = _distance(output, wanted) if self.embeds else _divergence(output, wanted)
        if self.share == 1 or batch.labels is None:
            return {"loss": divergence, "divergence": divergence}
        labelled = F.cross_entropy(_scores(output), batch.labels)
        loss = self.share * divergence + (1 - self.share) * labelled
        return {"loss": loss, "divergence": divergence, "cross_entropy": labelled}


# What a step of what learns costs, and by how much its loss is larger for missing the budget.
Price = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FrozenMethod:
    """Trains what stands beside frozen weights: to say what the model says, at a price if any."""

    module: nn.Module
    distillation: Distillation
    price: Price | None = None

    def begin_step(self, step: int) -> None:
        """Nothing is drawn."""

    def loss(self, forward: Callable[[Tensor], Tensor], batch: TrainingBatch) -> dict[str, Tensor]:
        """Return the loss of a batch."""
        losses = self.distillation.loss(forward(batch.images), batch)
        if self.price is None:
            return losses
        cost, penalty = self.price()
        return {**losses, "loss": losses["loss"] + penalty, "cost": cost}


@dataclass(frozen=True)
class TrainingJob:
    """A training as it is asked for, whatever it trains."""

    images: TrainingImages
    distillation: Distillation
    plan: TrainingSettings
    folder: TrainingFolder

    def __post_init__(self) -> None:
        """TrainingError where labels are to be mixed and there are none."""
        if self.plan.mixes and not self.images.labelled:
            raise TrainingError(
                f"--mixup and --cutmix mix labels, of which the images of {self.images.name} have "
                f"none; leave them out"
            )

    def begin(self, kind: str, evaluator: PolicyEvaluator, policies: Sequence[Policy]) -> None:
        """Write down what is asked; RunError where the folder holds another training."""
        self.folder.begin(
            {
                "kind": kind,
                "model": evaluator.identity.digest,
                "policies": [policy.schedule_hash for policy in policies],
                "images": self.images.digest,
                "search": evaluator.splits.search.digest,
                "distill": self.distillation.share,
                **asdict(self.plan),
            }
        )

    def trainer(self, method: Method, evaluator: PolicyEvaluator) -> Trainer:
        """Return what carries it out."""
        # Labels that the loss leaves out are mixed as well, and may be of other classes.
        classes = max(count_classes(evaluator), self.images.classes or 0)
        return Trainer(method, self.images, self.plan, folder=self.folder, classes=classes)


def make_distillation(
    evaluator: PolicyEvaluator, images: TrainingImages, share: float | None
) -> Distillation:
    """Return the loss for a model and the images it is trained on.

    share  of the divergence from the model's own answers; None is half where there are labels of
           classes, else all

    Raises:
        TrainingError: The share is none, or the model returns tokens.
        DataError: Labels are asked for where there are none.
    """
    embeds = evaluator.objective in EMBEDDING_OBJECTIVES
    if evaluator.dense:
        raise TrainingError(
            "the model returns its tokens, whose number a policy changes; train one that returns "
            "classes or embeddings"
        )
    if share is not None and not 0 <= share <= 1:
        raise TrainingError(f"--distill is {share:g}; it must be a share from 0 to 1")
    if share not in {None, 1.0} and embeds:
        raise TrainingError(
            f"--distill is {share:g}, but the model returns embeddings, which no label is held "
            f"against; give --distill 1"
        )
    if share not in {None, 1.0} and not images.labelled:
        raise DataError(
            f"--distill is {share:g}, but the images of {images.name} have no labels; give "
            f"--distill 1, which needs none"
        )
    usual = EVEN if images.labelled and not embeds else 1.0
    chosen = usual if share is None else share
    outputs = count_classes(evaluator)
    if chosen < 1 and images.classes and images.classes > outputs:
        raise DataError(
            f"the images of {images.name} have {images.classes} classes and the model has "
            f"{outputs}; name its classes with --class-map FILE, or give --distill 1, which needs "
            f"no labels"
        )
    return Distillation(evaluator.model, chosen, embeds)


@torch.inference_mode()
def count_classes(evaluator: PolicyEvaluator) -> int:
    """Return how many classes the model tells apart: a single score tells two."""
    image, _ = evaluator.splits.search.part(0, 1)
    output: Tensor = evaluator.model(image.to(next(evaluator.model.parameters())))
    return max(2, output.shape[1])


def _divergence(output: Tensor, wanted: Tensor) -> Tensor:
    """Mean divergence of predictions, nats."""
    own, others = (F.log_softmax(_scores(each), dim=1) for each in (output, wanted))
    return F.kl_div(own, others, reduction="batchmean", log_target=True)


def _distance(output: Tensor, wanted: Tensor) -> Tensor:
    """Mean of 1 minus the cosine of embeddings."""
    return 1 - F.cosine_similarity(output.float(), wanted.float()).mean()


def _scores(output: Tensor) -> Tensor:
    """Scores in single precision; a single one is that of the second of two classes."""
    output = output.float()
    return F.pad(output, (1, 0)) if output.shape[1] == 1 else output
