"""What files must hold of the records: one check per record, field by field.

Of other records than cells, a field with a default may be absent: older versions did not write it.
"""

from typing import Any, get_args

from tokensearch.documents import (
    COUNT,
    NAME,
    NUMBER,
    SHARE,
    TIME_MS,
    MisfitError,
    choice,
    fields,
    integer,
    items,
    mapping,
    number,
    optional,
)
from tokensearch.errors import PolicyError
from tokensearch.policy import BOUNDS
from tokensearch.policy.file import policy_from_json
from tokensearch.records import (
    AccuracyKind,
    Backend,
    Cache,
    Caution,
    Memory,
    TrialState,
    Verdict,
)

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
    },
    {"name": NAME},
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
    }
)
MODEL = fields(
    {"name": NAME, **{name: integer(*bounds) for name, bounds in BOUNDS.items()}},
    {"weights": optional(NAME)},
)
LATENCY = fields({"passes_ms": items(TIME_MS, least=1), "warmup": COUNT}, {"median_ms": TIME_MS})
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
_ACCURACY = fields(
    {
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
    },
    {"top1": SHARE},
)


def ACCURACY(value: Any) -> None:  # noqa: N802  # a check as the others are
    """An accuracy, of no more right answers than images."""
    _ACCURACY(value)
    for name in ("right", "agreed"):
        if value[name] > value["images"]:
            raise MisfitError(f"is {value[name]}, of {value['images']} images", name)


def POLICY(value: Any) -> None:  # noqa: N802
    """A policy, as a policy file has it."""
    try:
        policy_from_json(value)
    except PolicyError as error:
        raise MisfitError(f"is no policy: {error}") from None


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
