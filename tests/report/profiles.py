"""Profiles whose every figure is chosen, so that what a ledger shows can be checked by hand."""

from collections.abc import Mapping
from typing import Any

from tests.cells import CELL
from tokensearch.policy import Policy
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import Latency
from tokensearch.records.profile import PhaseTime, Profile, Scope

ROUNDS = 16
Parts = Mapping[Scope, float]  # milliseconds


def passes(ms: float, noise_ms: float = 0.0) -> tuple[float, ...]:
    """Rounds whose middle half has the mean `ms`, one above it and one below in turn."""
    return tuple(ms + (-noise_ms if number % 2 else noise_ms) for number in range(ROUNDS))


def timed(parts: Parts, noise: Parts) -> tuple[PhaseTime, ...]:
    return tuple(
        PhaseTime(*scope, passes(ms, noise.get(scope, 0.0))) for scope, ms in parts.items()
    )


def profile(
    policy: Policy,
    stamped: Parts,
    *,
    name: str,
    plain_ms: float,
    floor: Parts | None = None,
    noise: Parts | None = None,
    **fields: Any,
) -> Profile:
    """A profile of `policy` with these times; `noise` is on the stamped passes."""
    return Profile(
        **{
            "name": name,
            "model": policy.model.name,
            "schedule_hash": policy.schedule_hash,
            "patch_tokens": policy.patch_tokens_per_block,
            "prefix_tokens": policy.model.prefix_tokens,
            "policy": policy_to_json(policy),
            "cell": CELL,
            "session": "one",
            "plain": Latency(passes(plain_ms, 0.001 * plain_ms), warmup=3),
            "stamped": timed(stamped, noise or {}),
            "floor": () if floor is None else timed(floor, {}),
            **fields,
        }
    )
