"""What files must hold of the records: one check per record, field by field.

Of other records than cells, a field with a default may be absent: older versions did not write it.
"""

from functools import partial
from math import isclose
from statistics import median
from typing import Any, get_args

from tokensearch.documents import (
    COUNT,
    FLAG,
    LONGEST_MS,
    MAX_BYTES,
    MAX_TEXT,
    NAME,
    NUMBER,
    SHARE,
    TIME_MS,
    Check,
    DescribedCheck,
    MisfitError,
    Schema,
    by_field,
    choice,
    every,
    fields,
    integer,
    items,
    mapping,
    number,
    optional,
    schema_of,
    text,
)
from tokensearch.errors import PolicyError, TargetError
from tokensearch.policy import BOUNDS, OBJECTIVES, Outcome, parse_target
from tokensearch.policy.file import COSINE, HEX_DIGITS, policy_from_json
from tokensearch.records.embedding import EmbeddingKind, RightBy
from tokensearch.records.measurements import (
    AccuracyKind,
    AlternativeKind,
    Backend,
    Cache,
    Caution,
    Memory,
    TrialState,
    Verdict,
)

ROUNDING = 1e-9  # relative; a file holds all digits, and figures derived from others beside them
RATIO = number(1e-9, 1e9)  # of two times; its logarithm is taken
NATS = number(-1, 1e6)  # a divergence is never below 0 but for rounding

# Of machines and cells every field: two that are compared must be known alike.
MACHINE = fields(
    {
        "processor": NAME,
        "cores": integer(1, 2**20),
        "accelerator": optional(NAME),
        "system": NAME,
        "versions": mapping(NAME),
        "governor": optional(NAME),
        "driver": optional(NAME),
        "max_clock_mhz": optional(COUNT),
        "power_limit_w": optional(NUMBER),
        "name": NAME,
    }
)
CELL = fields(
    {
        "device": NAME,
        "dtype": NAME,
        "batch": integer(1, 2**20),
        "resolution": integer(1, 2**16),
        "backend": choice(*get_args(Backend)),
        "threads": integer(0, 2**20),
        "machine": MACHINE,
        "memory": choice(*get_args(Memory)),
        "cache": choice(*get_args(Cache)),
        "attention": optional(NAME),
    },
    {"matmul": optional(NAME), "kernels": optional(NAME), "columns": integer(1, 2**16)},
)
MODEL = fields(
    {"name": NAME, **{name: integer(*bounds) for name, bounds in BOUNDS.items()}},
    {"weights": optional(NAME)},
)


def _check_median(value: Any) -> None:
    said, derived = value["median_ms"], median(value["passes_ms"])
    if not isclose(said, derived, rel_tol=ROUNDING):
        raise MisfitError(f"is {said!r:.60}, where the passes have {derived!r}", "median_ms")


LATENCY = every(
    fields(
        {"passes_ms": items(TIME_MS, least=1), "warmup": COUNT, "median_ms": TIME_MS},
    ),
    _check_median,
)
CONDITIONS = fields(
    {"tick_ms": number(0, 1e9), "others": optional(NUMBER)},
    {
        "gpu_clock": optional(NUMBER),
        "gpu_throttled": items(NAME),
        "gpu_temperature_c": optional(integer(-300, 10_000)),
        "gpu_processes": optional(COUNT),
    },
)
COMPARISON = fields(
    {
        "baseline": LATENCY,
        "candidate": LATENCY,
        "ratio": RATIO,
        "low": RATIO,
        "high": RATIO,
        "level": SHARE,
        "verdict": choice(*get_args(Verdict)),
    },
    {
        "cautions": items(choice(*(caution.name.lower() for caution in Caution))),
        "conditions": optional(CONDITIONS),
    },
)
PAIRED = fields(
    {
        "images": integer(1, 2**53),
        "only_baseline": COUNT,
        "only_candidate": COUNT,
        "p_value": SHARE,
        "difference": number(-1, 1),
        "low": number(-1, 1),
        "high": number(-1, 1),
        "level": SHARE,
    }
)


def _check_shares(share: str, value: Any) -> None:
    """Hold counts against the number of images, and the field `share` against them."""
    for name in ("right", "agreed"):
        if value.get(name, 0) > value["images"]:
            raise MisfitError(f"is {value[name]}, of {value['images']} images", name)
    if not value["low"] - ROUNDING <= value[share] <= value["high"] + ROUNDING:
        raise MisfitError("is outside its own interval", share)
    said, derived = value[share], value["right"] / value["images"]
    if not isclose(said, derived, rel_tol=ROUNDING, abs_tol=ROUNDING):
        raise MisfitError(f"is {said!r:.60}, where the answers have {derived!r}", share)


_ACCURACY = every(
    fields(
        {
            "top1": SHARE,
            "kind": choice(*get_args(AccuracyKind)),
            "split": NAME,
            "split_hash": NAME,
            "images": integer(1, 2**53),
            "right": COUNT,
            "low": SHARE,
            "high": SHARE,
            "level": SHARE,
            "kl": NATS,
            "ce": NATS,
            "agreed": COUNT,
        }
    ),
    partial(_check_shares, "top1"),
)
_EMBEDDING_ACCURACY = every(
    fields(
        {
            "kind": choice(*get_args(EmbeddingKind)),
            "right_by": choice(*get_args(RightBy)),
            "split": NAME,
            "split_hash": NAME,
            "images": integer(1, 2**53),
            "cosine": COSINE,
            "right": COUNT,
            "share": SHARE,
            "low": SHARE,
            "high": SHARE,
            "level": SHARE,
            "recall_at_1": SHARE,
            "recall_at_10": SHARE,
        },
        {"knn": SHARE, "probe": SHARE},
    ),
    partial(_check_shares, "share"),
)
ACCURACY = by_field("cosine", _EMBEDDING_ACCURACY, _ACCURACY)
_CHOICE = by_field(
    "cosine_low",
    fields(
        {"right": HEX_DIGITS, "cosine_low": COSINE, "cosine_high": COSINE}, {"groups": HEX_DIGITS}
    ),
    fields({"right": HEX_DIGITS, "kl_low": NATS, "kl_high": NATS}, {"groups": HEX_DIGITS}),
)


def _policy(value: Any) -> None:
    try:
        policy_from_json(value)
    except PolicyError as error:
        raise MisfitError(f"is no policy: {error}") from None


POLICY = DescribedCheck(
    _policy, {"type": "object", "description": "A policy, as policy-v1.schema.json has it."}
)

TRIAL = fields(
    {
        "number": COUNT,
        "origin": NAME,
        "schedule_hash": NAME,
        "state": choice(*get_args(TrialState)),
        "predicted": RATIO,
        "comparison": optional(COMPARISON),
        "accuracy": ACCURACY,
        "seconds": number(0, 1e9),
        "policy": POLICY,
    }
)


def _target(value: Any) -> None:
    try:
        parse_target(value)
    except TargetError as error:
        raise MisfitError(f"is no target: {error}") from None


RUN_FORMAT, RUN_VERSION = "tokensearch.run", 1
_SPLIT = fields(
    {"images": integer(1, 2**53), "digest": NAME},
    {"contents": text(MAX_BYTES), "of": integer(1, 2**53)},
)
_SETTINGS = fields(
    {
        "model": NAME,
        "checkpoint": optional(NAME),
        "data": optional(NAME),
        "target": optional(every(NAME, _target)),
        "device": NAME,
        "dtype": NAME,
        "batch": integer(1, 2**20),
        "resolution": integer(1, 2**16),
        "space": NAME,
        "space_digest": NAME,
        "sampler": NAME,
        "seed": integer(-(2**63), 2**64),
        "objective": choice(*OBJECTIVES),
        "backend": choice(*get_args(Backend)),
    },
    {"max_drop": SHARE, "max_divergence": number(0), "columns": integer(1, 2**16)},
)
_BYTES = integer(1, 2**63)
_ENVIRONMENT = fields(
    {"started": NAME, "program": NAME, "host": NAME, "memory_bytes": optional(_BYTES)},
    {"gpu_memory_bytes": optional(_BYTES)},
)
_FINALIST = fields(
    {
        "schedule_hash": NAME,
        "origin": NAME,
        "policy": POLICY,
        "search": ACCURACY,
        "select": ACCURACY,
        "report": ACCURACY,
        "paired": PAIRED,
        "comparison": COMPARISON,
        "on_front": FLAG,
    },
    {
        "choice": _CHOICE,
        "earlier": COMPARISON,
    },
)
_ALTERNATIVE = fields(
    {
        "name": NAME,
        "kind": choice(*get_args(AlternativeKind)),
        "pixels": integer(1, 2**16),
        "report": ACCURACY,
        "paired": PAIRED,
        "comparison": COMPARISON,
        "lead": optional(PAIRED),
    }
)
_SECONDS = number(0, 1e9)
_RIVAL = fields({"name": NAME, "schedule_hash": NAME, "lead": optional(PAIRED)})
_RESULT = fields(
    {
        "outcome": choice(*get_args(Outcome)),
        "exit_code": integer(0, 255),
        "limit_ms": optional(number(0)),
        "baseline_ms": TIME_MS,
        "search_seconds": _SECONDS,
        "seconds": _SECONDS,
        "trials": fields(dict.fromkeys(("complete", "raced", "out_of_reach", "duplicate"), COUNT)),
        "forecast": fields({"error": number(0), "timed": COUNT}),
        "answer": optional(NAME),
        "best_preset": optional(_RIVAL),
        "finalists": items(_FINALIST, most=10_000),
        "cautions": items(text(MAX_TEXT)),
        "baseline_moved": fields({"finalists": NUMBER}, {"search": NUMBER}),
    },
    {
        "rivals": items(_ALTERNATIVE, most=1000),
        "as_good": items(NAME, most=10_000),
        "promising": NAME,
        "equal_preset": _RIVAL,
        "best_random": _RIVAL,
    },
)


RUN = fields(
    {
        "format": choice(RUN_FORMAT),
        "version": integer(RUN_VERSION, RUN_VERSION),
        "settings": _SETTINGS,
        "budget": fields({"trials": optional(COUNT), "seconds": optional(_SECONDS)}),
        "command": text(MAX_TEXT),
        "model": every(MODEL, fields({"weights": optional(NAME)})),
        "cell": CELL,
        "data": fields(
            {
                "name": NAME,
                "labelled": FLAG,
                "splits": every(fields({"report": _SPLIT}), mapping(_SPLIT)),
            }
        ),
        "result": optional(_RESULT),
    },
    {
        "smaller": optional(fields({"name": NAME, "key": NAME})),
        "identity": fields(dict.fromkeys(("weights", "architecture", "code", "versions"), NAME)),
        "environment": _ENVIRONMENT,
        "retargeted": NAME,
        "other_settings": items(NAME, most=1000),
        "launching": optional(fields({"host_ms": number(0, LONGEST_MS), "pass_ms": TIME_MS})),
    },
)
_NAMED: dict[str, Check] = {
    "machine": MACHINE,
    "cell": CELL,
    "latency": LATENCY,
    "conditions": CONDITIONS,
    "comparison": COMPARISON,
    "accuracy": ACCURACY,
    "choice": _CHOICE,
    "paired": PAIRED,
    "policy": POLICY,
    "split": _SPLIT,
    "finalist": _FINALIST,
    "alternative": _ALTERNATIVE,
    "result": _RESULT,
}


def run_schema() -> dict[str, Any]:
    """Return the JSON Schema of run.json that these checks amount to."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tokensearch run, version 1",
        **_refer(schema_of(RUN)),
        "$defs": {name: _refer(schema_of(wanted)) for name, wanted in _NAMED.items()},
    }


def _refer(schema: Schema) -> dict[str, Any]:
    """Return a schema in which parts that have a name stand by it."""
    return {key: _refer_within(part) for key, part in schema.items()}


def _refer_within(part: Any) -> Any:
    for name, wanted in _NAMED.items():
        if part is schema_of(wanted):
            return {"$ref": f"#/$defs/{name}"}
    if isinstance(part, dict):
        return _refer(part)
    return [_refer_within(item) for item in part] if isinstance(part, list) else part
