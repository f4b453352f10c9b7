"""What else would be as fast: controls that are no token schedules.

The same model on smaller images, and a smaller model where its weights are given. They go the way
of finalists: timed afresh in turn with the baseline, judged on the images of `report`.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokensearch import runtime
from tokensearch.accuracy.accuracy import Results, compare_results
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.data.pixels import Preprocessing
from tokensearch.errors import ExportError, MeasurementError, ModelError, first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import OtherModel
from tokensearch.measure import TimingBudget
from tokensearch.policy import ModelSpec, Policy, block_macs
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import (
    COMPILED,
    EXPORTED,
    AlternativeKind,
    Backend,
    Comparison,
    PairedAccuracy,
)
from tokensearch.records.run_result import Alternative, SmallerModel

# After a long search, neither a control nor a picture of it may cost the result. RuntimeError is
# what torch raises where memory runs out or a model cannot be compiled.
# Enough to tell sizes a patch a side apart: at 14 patches a side they differ by 15 %.
QUICK_BUDGET = TimingBudget(warmup=1, max_rounds=20, seconds=1.0, precision=0.02)
SIZES_TIMED = 4  # at most
NO_REASON_TO_FAIL = MeasurementError, ModelError, ExportError, RuntimeError, MemoryError


@dataclass(frozen=True)
class AlternativeModel:
    """A model that could be run in the place of one that drops tokens."""

    name: str  # "160 px", or the smaller model's
    kind: AlternativeKind
    module: nn.Module  # on the device of the cell, in its dtype, in eval mode
    pixels: int  # side of the images it takes
    key: str  # which it is, beside the baseline, for answers that are kept
    prepare: Callable[[Tensor], Tensor]  # from images as the baseline takes them, float32
    backend: Backend | None = None  # None: that of the run
    dtype: torch.dtype | None = None  # likewise

    def on(self, images: Tensor) -> OtherModel:
        """Return it with a batch of its own images, from those the baseline takes."""
        own = self.prepare(images.float()).to(self.dtype or images.dtype)
        return OtherModel(self.module, own, self.backend)

    @property
    def info(self) -> SmallerModel:
        """What run.json says was asked for."""
        return SmallerModel(self.name, self.key)


def find_alternatives(
    evaluator: PolicyEvaluator,
    listener: ProgressListener,
    *,
    target_ratio: float,
    smaller: AlternativeModel | None = None,
    may_go_on: Callable[[], bool] = lambda: True,
) -> tuple[AlternativeModel, ...]:
    """Return what else may be as fast and can be run here.

    target_ratio  the target as a share of the baseline's latency
    may_go_on     whether there is time to try one more size
    """
    listener.stage("looking for other ways to be as fast")
    models = []
    try:
        models.append(fit_resolution(evaluator, target_ratio, may_go_on))
    except ModelError as error:
        listener.note(f"no lower resolution to compare with: {error}")
    except NO_REASON_TO_FAIL as error:
        listener.caution(f"no lower resolution to compare with: {first_line(error)}")
    if smaller is not None:
        try:
            time_briefly(smaller, evaluator)  # that it can be run here
            models.append(smaller)
        except NO_REASON_TO_FAIL as error:
            listener.caution(f"{smaller.name} is left out of the report: {first_line(error)}")
    return tuple(models)


def score_alternatives(
    models: Sequence[AlternativeModel],
    comparisons: Sequence[Comparison],
    evaluator: PolicyEvaluator,
    listener: ProgressListener,
    *,
    images: int,
    answer: Policy | None,
) -> tuple[Alternative, ...]:
    """Ask models that were timed about the images that are quoted.

    images  the first of `report` that are quoted
    answer  what each is compared with, image by image
    """
    scored = []
    for model, comparison in zip(models, comparisons, strict=True):
        try:
            scored.append(_score(model, comparison, evaluator, quoted=images, answer=answer))
        except NO_REASON_TO_FAIL as error:
            listener.caution(f"{model.name} is left out of the report: {first_line(error)}")
    return tuple(scored)


def fit_resolution(
    evaluator: PolicyEvaluator, target_ratio: float, may_go_on: Callable[[], bool] = lambda: True
) -> AlternativeModel:
    """Return the same model on the largest images that meet the target, by timing.

    From the size that promises it by multiply-accumulates, a patch a side more or less at a time.

    Raises:
        ModelError: The model cannot change its input size, or no size is small enough.
    """
    model = evaluator.model
    _check_resizable(model)
    if evaluator.cell.columns is not None:
        raise ModelError("its images are not square, and only sides of squares are tried")
    patch_px = _patch_px(model)
    promised = pixels_within(runtime.describe(model), patch_px, target_ratio)
    if promised is None:
        raise ModelError(f"one patch alone takes more than {target_ratio:.2g}x of a pass")
    most = 1 if evaluator.cell.backend in (*COMPILED, *EXPORTED) else SIZES_TIMED
    best, pixels, step = None, promised, 0
    for _ in range(most):
        candidate = at_resolution(model, pixels)
        meets = time_briefly(candidate, evaluator) <= target_ratio
        step = step or (patch_px if meets else -patch_px)
        if best is None or meets or step < 0:
            best = candidate
        if (step > 0) != meets:  # the border is passed
            return best
        pixels += step
        if not 0 < pixels < evaluator.cell.resolution or not may_go_on():
            break
    assert best is not None  # at least one was timed
    return best


def time_briefly(model: AlternativeModel, evaluator: PolicyEvaluator) -> float:
    """Time a model briefly, as a share of the baseline's latency."""
    other = model.on(evaluator.images)
    return evaluator.time_model(other, QUICK_BUDGET).ratio


def at_resolution(model: nn.Module, pixels: int) -> AlternativeModel:
    """Return the same model on images of another size; positions are resampled as timm does.

    Raises:
        ModelError: The model cannot be run on them.
    """
    kind, module = type(model).__name__, copy.deepcopy(model)
    resizable: Any = module
    weight = next(model.parameters())
    try:
        with torch.no_grad():
            resizable.set_input_size(img_size=(pixels, pixels))
            module(torch.zeros(1, 3, pixels, pixels, device=weight.device, dtype=weight.dtype))
    except Exception as error:  # a host raises what it likes
        raise ModelError(f"a {kind} cannot be run on {pixels} px: {first_line(error)}") from error
    resize = partial(resized, pixels=pixels)
    return AlternativeModel(f"{pixels} px", "resolution", module, pixels, f"{pixels}px", resize)


def _check_resizable(model: nn.Module) -> None:
    if not hasattr(model, "set_input_size"):
        raise ModelError(f"a {type(model).__name__} cannot change its input size")


def pixels_within(model: ModelSpec, patch_px: int, target_ratio: float) -> int | None:
    """Return the largest side, in whole patches, with at most `target_ratio` of the blocks' work.

    >>> pixels_within(ModelSpec("toy", 12, 196, 1, 128), patch_px=16, target_ratio=0.5)
    160
    """
    whole = sum(block_macs(Policy(model)))
    for side in range(math.isqrt(model.patch_tokens) - 1, 0, -1):
        fewer = replace(model, patch_tokens=side**2)
        if sum(block_macs(Policy(fewer))) <= target_ratio * whole:
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


def _score(
    model: AlternativeModel,
    comparison: Comparison,
    evaluator: PolicyEvaluator,
    *,
    quoted: int,
    answer: Policy | None,
) -> Alternative:
    images = evaluator.images
    answers = evaluator.predictions.results_of_alternative(
        model.key,
        "report",
        partial(_logits, model, images.device, model.dtype or images.dtype),
        first=quoted,
    )
    scored = evaluator.score_results(answers, "report")
    return Alternative(
        name=model.name,
        kind=model.kind,
        pixels=model.pixels,
        report=scored.accuracy,
        paired=scored.paired,
        comparison=comparison,
        lead=None if answer is None else _lead(evaluator, answer, answers),
    )


@torch.inference_mode()
def _logits(
    model: AlternativeModel, device: torch.device, dtype: torch.dtype, images: Tensor
) -> Tensor:
    """Logits, (B, K), for images as the baseline takes them, float32 (B, 3, S, S)."""
    logits: Tensor = model.module(model.prepare(images).to(device, dtype))
    return logits


def _lead(evaluator: PolicyEvaluator, answer: Policy, theirs: Results) -> PairedAccuracy:
    mine = evaluator.predictions.results(answer, "report", first=len(theirs))
    return compare_results(mine, theirs, evaluator.splits.report)


def _patch_px(model: nn.Module) -> int:
    """Side of what becomes a patch token, a hybrid's convolutions counted in."""
    features: Any = getattr(model, "feature_info", None)
    if not features:
        raise ModelError(f"a {type(model).__name__} does not say how large its patches are")
    return int(features[0]["reduction"])
