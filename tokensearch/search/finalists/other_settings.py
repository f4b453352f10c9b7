"""The answer and the baseline at other resolutions, number types and backends.

At equal latency smaller images with a mild schedule may be better than either alone. Each is timed
in the rounds of the finalists, in turn with the baseline of the run, and judged on the images of
`report` in its own number type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from tokensearch import runtime
from tokensearch.errors import ModelError, first_line
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy
from tokensearch.policy.rescale import rescaled
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Backend, Cell
from tokensearch.search.finalists.alternatives import (
    NO_REASON_TO_FAIL,
    AlternativeModel,
    at_resolution,
    time_briefly,
)


@dataclass(frozen=True, slots=True)
class OtherSettings:
    """How a model could be run otherwise than in the cell of a run."""

    resolution: int  # side of the images in pixels
    dtype: str
    backend: Backend

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
    own = OtherSettings(cell.resolution, cell.dtype, cell.backend)
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
    """Return the baseline and the answer as they would be run in other settings.

    What cannot be run here is left out with a caution. No clock ends it: these were asked for.
    """
    if wanted:
        listener.stage("preparing the answer in other settings")
    policies = [None] if answer is None else [None, answer]
    variants = []
    for settings, policy in product(wanted, policies):
        try:
            variant = _make_variant(evaluator, settings, policy)
            time_briefly(variant, evaluator)  # that it can be run here
            variants.append(variant)
        except NO_REASON_TO_FAIL as error:
            listener.caution(f"{settings.name} is left out of the report: {first_line(error)}")
    return tuple(variants)


def _make_variant(
    evaluator: PolicyEvaluator, settings: OtherSettings, policy: Policy | None
) -> AlternativeModel:
    resized = at_resolution(evaluator.model, settings.resolution)
    dtype = getattr(torch, settings.dtype)
    module = resized.module.to(dtype)
    name = f"the baseline at {settings.name}"
    if policy is not None:
        module = runtime.apply(module, _carry_over(policy, module), dense=evaluator.dense)
        name = f"{policy.schedule_hash.removeprefix('sha256:')[:8]} at {settings.name}"
    schedule = "none" if policy is None else policy.schedule_hash
    return AlternativeModel(
        name=name,
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
