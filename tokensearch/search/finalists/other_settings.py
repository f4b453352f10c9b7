"""The answer and the baseline at other resolutions, number types and backends.

At equal latency smaller images with a mild schedule may be better than either alone. All are timed
in rounds of their own, once the answer is settled: the answer as it is, and in every other setting,
in turn with the baseline of the run. Each is judged on `report` in its own number type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch

from tokensearch import runtime
from tokensearch.errors import ModelError, first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy
from tokensearch.policy.rescale import rescaled
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Backend, Cell, Comparison
from tokensearch.search.finalists.alternatives import (
    NO_REASON_TO_FAIL,
    AlternativeModel,
    at_resolution,
    time_briefly,
)
from tokensearch.search.finalists.side_by_side import make_confirm_budget, tell_rounds


@dataclass(frozen=True, slots=True)
class OtherSettings:
    """How a model could be run."""

    resolution: int  # side of the images in pixels
    dtype: str
    backend: Backend

    @classmethod
    def of(cls, cell: Cell) -> "OtherSettings":
        """Return those of a cell."""
        return cls(cell.resolution, cell.dtype, cell.backend)

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.resolution} px, {self.dtype}, {self.backend}"


def list_settings(
    cell: Cell,
    *,
    resolutions: Sequence[int] = (),
    dtypes: Sequence[str] = (),
    backends: Sequence[Backend] = (),
) -> tuple[OtherSettings, ...]:
    """Return every combination but that of the cell; what is not given is as in the cell."""
    own = OtherSettings.of(cell)
    combined = product(
        resolutions or (own.resolution,), dtypes or (own.dtype,), backends or (own.backend,)
    )
    every = dict.fromkeys(OtherSettings(*each) for each in combined)
    return tuple(settings for settings in every if settings != own)


def make_variants(
    evaluator: PolicyEvaluator,
    wanted: Sequence[OtherSettings],
    answer: Policy | None,
    listener: ProgressListener,
) -> tuple[AlternativeModel, ...]:
    """Return the answer as it is, and baseline and answer as they would be in other settings.

    What cannot be run here is left out with a caution. No clock ends it: these were asked for.
    """
    own = [] if answer is None else [(OtherSettings.of(evaluator.cell), answer)]
    others = product(wanted, [None] if answer is None else [None, answer])
    variants = []
    for settings, policy in (*own, *others):
        try:
            variant = _make_variant(evaluator, settings, policy)
            time_briefly(variant, evaluator)  # that it can be run here
            variants.append(variant)
        except NO_REASON_TO_FAIL as error:
            listener.caution(f"{settings.name} is left out of the report: {first_line(error)}")
    return tuple(variants)


def time_variants(
    evaluator: PolicyEvaluator,
    wanted: Sequence[OtherSettings],
    answer: Policy | None,
    listener: ProgressListener,
    *,
    seconds: float,
) -> tuple[tuple[AlternativeModel, ...], tuple[Comparison, ...]]:
    """Make variants, and time them side by side; nothing where no other settings are wanted.

    seconds  of passes, for each
    """
    if not wanted:
        return (), ()
    listener.stage("timing the answer in other settings", unit="rounds")
    variants = make_variants(evaluator, wanted, answer, listener)
    budget = make_confirm_budget(len(variants), seconds)
    others = [variant.on(evaluator.images) for variant in variants]
    tell = partial(tell_rounds, listener, budget)
    return variants, evaluator.time_together((), budget, others=others, tell=tell)


def _make_variant(
    evaluator: PolicyEvaluator, settings: OtherSettings, policy: Policy | None
) -> AlternativeModel:
    resized = at_resolution(evaluator.model, settings.resolution)
    dtype = getattr(torch, settings.dtype)
    module = resized.module.to(dtype)
    who = "the baseline" if policy is None else "the answer"
    if policy is not None:
        module = runtime.apply(module, _carry_over(policy, module), dense=evaluator.dense)
    schedule = "none" if policy is None else policy.schedule_hash
    return AlternativeModel(
        name=f"{who} at {settings.name}",
        kind="settings",
        module=module,
        pixels=settings.resolution,
        key=f"{resized.key}:{settings.dtype}:{schedule}",
        prepare=resized.prepare,
        backend=settings.backend,
        dtype=dtype,
    )


def _carry_over(policy: Policy, module: torch.nn.Module) -> Policy:
    """Return a policy of the baseline for the same model at another resolution."""
    model = runtime.describe(module, name=policy.model.name)
    if model.patch_tokens == policy.model.patch_tokens:
        return replace(policy, model=model, evidence=())
    if any(step.op == "merger" for step in policy.steps):
        raise ModelError("a step with weights of its own is of one count of tokens")
    steps = rescaled(
        policy.steps,
        model,
        blocks=policy.model.blocks,
        patch_tokens=policy.model.patch_tokens,
    )
    return replace(policy, model=model, steps=steps, evidence=())
