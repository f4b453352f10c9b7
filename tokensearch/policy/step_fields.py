"""Steps as the fields of a policy file: what each may say, and how it is written and read."""

from collections.abc import Mapping
from typing import Any

from tokensearch.documents import NAME, NUMBER, Check, choice, fields, integer
from tokensearch.policy.model_spec import BOUNDS
from tokensearch.policy.steps import (
    MATCHES,
    PLACES,
    RESTS,
    SCORES,
    VALUES,
    Keep,
    Merger,
    Pool,
    Prune,
    PruneOrPool,
    Step,
    Threshold,
)

_PLACE = {"op": NAME, "block": integer(0, BOUNDS["blocks"][1] - 1)}
_KEPT = {**_PLACE, "keep": integer(1, BOUNDS["patch_tokens"][1])}
_SCORED = {"score": choice(*SCORES)}
# Closed: a field that changes the maths must not be passed over.
_STEPS: dict[str, tuple[type[Keep | Step], Check]] = {
    "keep": (Keep, fields(_PLACE, closed=True)),
    "prune": (
        Prune,
        fields(_KEPT, {**_SCORED, "rest": choice(*RESTS), "at": choice(*PLACES)}, closed=True),
    ),
    "pool": (
        Pool,
        fields(_KEPT, {**_SCORED, "match": choice(*MATCHES), "margin": NUMBER}, closed=True),
    ),
    "prune_or_pool": (
        PruneOrPool,
        fields({**_KEPT, "threshold": NUMBER}, _SCORED, closed=True),
    ),
    "threshold": (
        Threshold,
        fields({**_KEPT, "threshold": NUMBER}, {**_SCORED, "at": choice(*PLACES)}, closed=True),
    ),
    "merger": (
        Merger,
        fields(
            {**_KEPT, "tensors": NAME},
            {"scale": NUMBER, "values": choice(*VALUES), "at": choice(*PLACES)},
            closed=True,
        ),
    ),
}
_OP = choice(*_STEPS)


def check_step(value: Any) -> None:
    """Raise MisfitError where a value is not the fields of a step."""
    fields({"op": _OP})(value)
    _STEPS[value["op"]][1](value)


def step_from_fields(written: Mapping[str, Any]) -> Step | Keep:
    """Return the step of fields that `check_step` let through."""
    kind, _ = _STEPS[written["op"]]
    return kind(**{name: value for name, value in written.items() if name != "op"})


def step_fields(step: Step) -> dict[str, object]:
    """Fields of a step as a policy file spells them; what is not said is the default."""
    match step:
        case Prune(block, keep, score, rest, at):
            said: dict[str, object] = {
                "block": block,
                "op": "prune",
                "keep": keep,
                "score": score,
            }
            if rest != "drop":
                said["rest"] = rest
            return said if at == "between" else {**said, "at": at}
        case Pool(block, keep, match_, score, margin):
            said = {"block": block, "op": "pool", "keep": keep, "match": match_}
            more = {"score": score, "margin": margin}
            return said | {name: value for name, value in more.items() if value is not None}
        case PruneOrPool(block, keep, threshold, score):
            return {
                "block": block,
                "op": "prune_or_pool",
                "keep": keep,
                "threshold": threshold,
                "score": score,
            }
        case Threshold(block, keep, threshold, score, at):
            return {
                "block": block,
                "op": "threshold",
                "at": at,
                "keep": keep,
                "threshold": threshold,
                "score": score,
            }
        case Merger(block, keep, tensors, scale, values, at):
            return {
                "block": block,
                "op": "merger",
                "at": at,
                "keep": keep,
                "tensors": tensors,
                "scale": scale,
                "values": values,
            }
