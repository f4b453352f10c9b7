"""Published schedules and controls by name.

Each preset is a function of the model's token counts alone. Token lists come from the papers and
repositories named in `PRESETS`; those that fix a number of blocks or tokens are refused elsewhere.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokensearch.errors import PolicyError
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import LastBlock, Policy
from tokensearch.policy.steps import Pool, Prune, Score, Step

RANDOM = "random-"
CONTROL = "control"  # the source of what no paper proposed


@dataclass(frozen=True, slots=True)
class Preset:
    """One published schedule: how to build it, and where it comes from."""

    source: str
    summary: str
    steps: Callable[[ModelSpec], tuple[Step, ...]]
    blocks: int | None = None  # the depth it was published for; None fits any
    patch_tokens: int | None = None
    proportional_attention: bool = False
    last_block: LastBlock = "full"

    def fits(self, model: ModelSpec) -> bool:
        """Whether the schedule was made for a model of this depth and token count."""
        needs_prefix = self.last_block == "prefix_only"
        return (
            self.blocks in {None, model.blocks}
            and self.patch_tokens in {None, model.patch_tokens}
            and (model.prefix_tokens > 0 or not needs_prefix)
        )

    def build(self, model: ModelSpec) -> Policy:
        """Return the schedule for `model`; PolicyError if it does not fit."""
        return Policy(
            model,
            self.steps(model),
            proportional_attention=self.proportional_attention,
            last_block=self.last_block,
        )


def preset(name: str, model: ModelSpec) -> Policy:
    """Return the published schedule `name` for `model`.

    `random-NAME` drops tokens at random with the counts of NAME: the floor for every score.
    PolicyError for an unknown name (with the nearest ones) and for a model it was not made for.
    """
    if name.startswith(RANDOM):
        return at_random(preset(name.removeprefix(RANDOM), model))
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.3) or list(PRESETS)
        raise PolicyError(f"preset {name!r} is unknown; the nearest are {', '.join(near)}")
    chosen = PRESETS[name]
    if not chosen.fits(model):
        raise PolicyError(
            f"preset {name!r} was made for {chosen.blocks or 'any number of'} blocks and "
            f"{chosen.patch_tokens or 'any number of'} patch tokens; "
            f"{model.name} has {model.blocks} and {model.patch_tokens}"
        )
    return chosen.build(model)


def at_random(policy: Policy) -> Policy:
    """Return a control that drops random tokens down to the same counts."""
    last = {step.block: step.keep for step in policy.steps}  # of a prune and a pool, the pool's
    steps = tuple(Prune(block, keep, "random") for block, keep in last.items())
    return Policy(policy.model, steps, last_block=policy.last_block)


def _constant_r(removed: int) -> Callable[[ModelSpec], tuple[Step, ...]]:
    """Merge `removed` tokens in every block, at most half of those left (ToMe)."""

    def steps(model: ModelSpec) -> tuple[Step, ...]:
        left, chosen = model.patch_tokens, []
        for block in range(model.blocks):
            left -= min(removed, left // 2)
            chosen.append(Pool(block, left))
        return tuple(chosen)

    return steps


def _keep_rate(
    rate: float, blocks: Sequence[int], score: Score = "class_attention"
) -> Callable[[ModelSpec], tuple[Step, ...]]:
    """Keep ceil(rate * N) of the N patch tokens left, at each of `blocks` (EViT's counts)."""

    def steps(model: ModelSpec) -> tuple[Step, ...]:
        left, chosen = model.patch_tokens, []
        for block in blocks:
            left = math.ceil(rate * left)
            chosen.append(Prune(block, left, score))
        return tuple(chosen)

    return steps


def _nothing(model: ModelSpec) -> tuple[Step, ...]:
    """Reduce nothing."""
    return ()


def _tome(removed: int) -> Preset:
    return Preset(
        source="ToMe, arXiv:2210.09461",
        summary=f"merge {removed} similar tokens in every block",
        steps=_constant_r(removed),
        blocks=12,
        patch_tokens=196,
        proportional_attention=True,
    )


PRESETS: dict[str, Preset] = {
    "none": Preset(CONTROL, "the un-reduced model", _nothing),
    "last-cls": Preset(
        CONTROL,
        "the last block computes prefix tokens alone (lossless)",
        _nothing,
        last_block="prefix_only",
    ),
    "tome-r8": _tome(8),
    "tome-r13": _tome(13),
    "tome-r16": _tome(16),
    "topk-0.7": Preset(
        source="EViT without its fused token, arXiv:2202.07800",
        summary="keep the 70 % with most class attention at blocks 3, 6, 9",
        steps=_keep_rate(0.7, (3, 6, 9)),
        blocks=12,
        patch_tokens=196,
    ),
}
