"""Steps as the fields of a policy file: what each may say, and how it is written and read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tokensearch.documents import NAME, NUMBER, Check, choice, fields, integer, leaf
from tokensearch.policy.model_spec import BOUNDS
from tokensearch.policy.steps import (
    LEARNED,
    MATCHES,
    METRICS,
    OWN_PATTERN,
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
    is_own,
)

_PLACE = {"op": NAME, "block": integer(0, BOUNDS["blocks"][1] - 1)}
_KEPT = {**_PLACE, "keep": integer(1, BOUNDS["patch_tokens"][1])}
_SCORED = {"score": choice(*SCORES)}


def _choice_or_own(*known: str) -> Check:
    """One of some names, or the name of a function of the user's own."""
    return leaf(
        f"one of {', '.join(known)}, own:NAME",
        lambda value: type(value) is str and (value in known or is_own(value)),
        {"anyOf": [{"enum": list(known)}, {"pattern": f"^{OWN_PATTERN}$"}]},
    )


# Closed: a field that changes the maths must not be passed over.
_STEPS: dict[str, tuple[type[Keep | Step], Check]] = {
    "keep": (Keep, fields(_PLACE, closed=True)),
    "prune": (
        Prune,
        fields(
            _KEPT,
            {
                "score": _choice_or_own(*SCORES, LEARNED),
                "rest": choice(*RESTS),
                "at": choice(*PLACES),
                "tensors": NAME,
            },
            closed=True,
        ),
    ),
    "pool": (
        Pool,
        fields(
            _KEPT,
            {
                "score": _choice_or_own(*SCORES),
                "match": choice(*MATCHES),
                "margin": NUMBER,
                "metric": choice(*METRICS),
                "tensors": NAME,
            },
            closed=True,
        ),
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


# Fields that are said even where they are the default.
_SAID = {
    "prune": {"score"},
    "pool": {"match"},
    "prune_or_pool": {"score"},
    "threshold": {"score", "at"},
    "merger": {"scale", "values", "at"},
}


def step_fields(step: Step) -> dict[str, object]:
    """Fields of a step as a policy file spells them; what is not said is the default."""
    values = ((field, getattr(step, field.name)) for field in dataclasses.fields(step))
    said = {
        field.name: value
        for field, value in values
        if field.name in _SAID[step.op] or value != field.default
    }
    return {"block": said.pop("block"), "op": step.op, **said}
