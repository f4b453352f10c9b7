"""What else would be as fast: controls that are no token schedules.

The same model on smaller images, and a smaller model where its weights are given. They go the way
of finalists: timed afresh in turn with the baseline, judged on the images of `report`.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokensearch import runtime
from tokensearch.accuracy.accuracy import compare_results
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.accuracy.results import ImageResults
from tokensearch.data.pixels import Preprocessing
from tokensearch.errors import MeasurementError, ModelError, first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import ModelSpec, Policy, block_macs
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Accuracy, Comparison, PairedAccuracy, to_json
from tokensearch.search.finalists.finalist import CONFIRM_BUDGET

Kind = Literal["resolution", "model"]

# After a long search, neither a control nor a picture of it may cost the result. RuntimeError is
# what torch raises where memory runs out or a model cannot be compiled.
NO_REASON_TO_FAIL = MeasurementError, ModelError, RuntimeError, MemoryError


@dataclass(frozen=True)
class AlternativeModel:
    """A model that could be run in the place of one that drops tokens."""

    name: str  # "160 px", or the smaller model's
    kind: Kind
    module: nn.Module  # on the device of the cell, in its dtype, in eval mode
    pixels: int  # side of the images it takes
    key: str  # which it is, beside the baseline, for answers that are kept
    prepare: Callable[[Tensor], Tensor]  # from images as the baseline takes them, float32

    def to_json(self) -> dict[str, str]:
        """Return what run.json says was asked for."""
        return {"name": self.name, "key": self.key}


@dataclass(frozen=True, slots=True)
class Alternative:
    """A contender with all that was measured of it."""

    name: str
    kind: Kind
    pixels: int
    comparison: Comparison  # with the baseline, fresh
    accuracy: Accuracy  # on `report`
    paired: PairedAccuracy  # with the baseline, on the same images
    lead: PairedAccuracy | None  # the answer against it, on the same images; None without an answer

    def to_json(self) -> dict[str, Any]:
        """Return it as run.json holds it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "pixels": self.pixels,
            "report": to_json(self.accuracy),
            "paired": asdict(self.paired),
            "comparison": to_json(self.comparison),
            "lead": None if self.lead is None else asdict(self.lead),
        }


def measure_alternatives(
    evaluator: PolicyEvaluator,
    listener: ProgressListener,
    *,
    limit: float,
    answer: Policy | None,
    smaller: AlternativeModel | None = None,
) -> tuple[Alternative, ...]:
    """Measure what else would be as fast.

    limit   the target as a share of the baseline's latency
    answer  what each is compared with, image by image
    """
    listener.stage("timing and quoting other ways to be as fast")
    found = []
    for contender in _contenders(evaluator, listener, limit, smaller):
        try:
            found.append(_measured(contender, evaluator, answer))
        except NO_REASON_TO_FAIL as error:
            listener.caution(f"{contender.name} is left out of the report: {first_line(error)}")
    return tuple(found)


def lower_resolution(model: nn.Module, limit: float) -> AlternativeModel:
    """Return the same model on the largest images that promise the target.

    Its blocks' multiply-accumulates are at most `limit` of the baseline's; positions are
    resampled as timm does.

    Raises:
        ModelError: The model cannot change its input size, or no size is small enough.
    """
    kind = type(model).__name__
    if not hasattr(model, "set_input_size"):
        raise ModelError(f"a {kind} cannot change its input size")
    pixels = pixels_within(runtime.describe(model), _patch_px(model), limit)
    if pixels is None:
        raise ModelError(f"one patch alone takes more than {limit:.2f}x of a pass")
    module: Any = copy.deepcopy(model)
    place = next(model.parameters())
    try:
        with torch.no_grad():
            module.set_input_size(img_size=(pixels, pixels))
            module(torch.zeros(1, 3, pixels, pixels, device=place.device, dtype=place.dtype))
    except Exception as error:  # a host raises what it likes
        raise ModelError(f"a {kind} cannot be run on {pixels} px: {first_line(error)}") from error
    resize = partial(resized, pixels=pixels)
    return AlternativeModel(f"{pixels} px", "resolution", module, pixels, f"{pixels}px", resize)


def pixels_within(model: ModelSpec, patch_px: int, limit: float) -> int | None:
    """Return the largest side, in whole patches, with at most `limit` of the blocks' work.

    >>> pixels_within(ModelSpec("toy", 12, 196, 1, 128), patch_px=16, limit=0.5)
    160
    """
    whole = sum(block_macs(Policy(model)))
    for side in range(math.isqrt(model.patch_tokens) - 1, 0, -1):
        fewer = replace(model, patch_tokens=side**2)
        if sum(block_macs(Policy(fewer))) <= limit * whole:
            return side * patch_px
    return None


def smaller_model(
    name: str, module: nn.Module, *, given: Preprocessing, own: Preprocessing
) -> AlternativeModel:
    """Return another model, which sees the same crops, in its own size and normalisation.

    given  how the images are prepared for the baseline
    own    how this model wants them
    """
    prepare = partial(_as_own, given=given, own=own)
    key = f"{model_identity(module).digest}:{own.size_px}px:{given.mean}{given.std}"
    key += f":{own.mean}{own.std}"
    return AlternativeModel(name, "model", module, own.size_px, key, prepare)


def resized(images: Tensor, *, pixels: int) -> Tensor:
    """Return images, float32 (B, 3, S, S), at another size: (B, 3, pixels, pixels)."""
    if images.shape[-1] == pixels:
        return images
    return F.interpolate(images, size=(pixels, pixels), mode="bicubic", antialias=True)


def _as_own(images: Tensor, *, given: Preprocessing, own: Preprocessing) -> Tensor:
    """Return images that were normalised for one model, (B, 3, S, S), as another takes them."""
    mean, std, own_mean, own_std = (
        images.new_tensor(values)[:, None, None]
        for values in (given.mean, given.std, own.mean, own.std)
    )
    if given.mean != own.mean or given.std != own.std:
        images = (images * std + mean - own_mean) / own_std
    return resized(images, pixels=own.size_px)


def _contenders(
    evaluator: PolicyEvaluator,
    listener: ProgressListener,
    limit: float,
    smaller: AlternativeModel | None,
) -> list[AlternativeModel]:
    found = [] if smaller is None else [smaller]
    try:
        found.insert(0, lower_resolution(evaluator.model, limit))
    except ModelError as error:
        listener.note(f"no lower resolution to compare with: {error}")
    except NO_REASON_TO_FAIL as error:
        listener.caution(f"no lower resolution to compare with: {first_line(error)}")
    return found


def _measured(
    contender: AlternativeModel, evaluator: PolicyEvaluator, answer: Policy | None
) -> Alternative:
    """Time a contender, and ask it about the images that are quoted."""
    images = evaluator.images
    own = contender.prepare(images.float()).to(images.dtype)
    answers = evaluator.predictions.results_of_alternative(
        contender.key, "report", partial(_logits, contender, images.device, images.dtype)
    )
    scored = evaluator.score_results(answers, "report")
    return Alternative(
        contender.name,
        contender.kind,
        contender.pixels,
        evaluator.time_model(contender.module, own, CONFIRM_BUDGET),
        scored.accuracy,
        scored.paired,
        None if answer is None else _lead(evaluator, answer, answers),
    )


@torch.inference_mode()
def _logits(
    contender: AlternativeModel, device: torch.device, dtype: torch.dtype, images: Tensor
) -> Tensor:
    """Logits, (B, K), for images as the baseline takes them, float32 (B, 3, S, S)."""
    logits: Tensor = contender.module(contender.prepare(images).to(device, dtype))
    return logits


def _lead(evaluator: PolicyEvaluator, answer: Policy, theirs: ImageResults) -> PairedAccuracy:
    mine = evaluator.predictions.results(answer, "report")
    return compare_results(mine, theirs, evaluator.splits.report)


def _patch_px(model: nn.Module) -> int:
    """Side of what becomes a patch token, a hybrid's convolutions counted in."""
    features: Any = getattr(model, "feature_info", None)
    if not features:
        raise ModelError(f"a {type(model).__name__} does not say how large its patches are")
    return int(features[0]["reduction"])
