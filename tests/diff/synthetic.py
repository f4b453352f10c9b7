"""Profiles of a model that does not exist, in noise whose kind is chosen."""

from math import sqrt

import numpy as np

from tests.cells import CELL
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.policy import ModelSpec, Policy
from tokensearch.policy.file import policy_to_json
from tokensearch.records.measurements import Latency
from tokensearch.records.profile import PhaseTime, Profile, Scope

SPEC = ModelSpec("toy", blocks=12, patch_tokens=196, prefix_tokens=1, width=64)
Parts = dict[Scope, float]
HOST: Parts = {
    (None, "stem"): 1.0,
    **{(block, "attention"): 2.0 for block in range(12)},
    **{(block, "mlp"): 3.0 for block in range(12)},
    (None, "head"): 1.0,
}
HALF: Parts = {scope: 0.5 * ms if (scope[0] or 0) >= 6 else ms for scope, ms in HOST.items()}
SPENT: Parts = {(5, "selecting"): 0.9, (5, "merging"): 0.7, (6, "bias"): 0.2}


def make_profile(
    parts: Parts,
    *,
    seed: int,
    floor: Parts | None = None,
    rounds: int = 60,
    session: str = "one",
    spread: float = 0.02,
    drift: int = 0,
    memory: float = 0.0,
    cut: bool = False,
) -> Profile:
    """Passes whose every part wavers by 2 %, and which drift together within a session.

    `memory` is the coefficient of AR(1) noise, which every part has for itself. The floor's plain
    passes are those that its phases add up to.
    """
    random = np.random.default_rng(seed)
    slow = 1 + 0.05 * np.sin(np.random.default_rng(drift).normal(size=rounds).cumsum() / 4)

    def passes(ms: float) -> tuple[float, ...]:
        wavers = random.standard_normal(rounds)
        for number in range(1, rounds):
            wavers[number] = memory * wavers[number - 1] + sqrt(1 - memory**2) * wavers[number]
        return tuple(ms * slow * (1 + spread * wavers))

    def phases(of: Parts) -> tuple[PhaseTime, ...]:
        return tuple(PhaseTime(*scope, passes(ms)) for scope, ms in of.items())

    return Profile(
        name=f"profile {seed}",
        model="toy",
        schedule_hash="sha256:0",
        patch_tokens=(196,) * 5 + (98 if cut else 196,) * 7,
        prefix_tokens=1,
        policy=policy_to_json(Policy(SPEC)),
        cell=CELL,
        session=session,
        plain=Latency(passes(sum(parts.values())), warmup=3),
        stamped=phases(parts),
        floor=phases(floor) if floor else (),
        floor_plain=Latency(passes(sum(floor.values())), warmup=3) if floor else None,
    )


def compare_with_itself(number: int, *, rounds: int, memory: float) -> Ledger:
    """The ledger of a model with itself, in noise of its own."""
    pair = (
        make_profile(HOST, seed=2 * number + i, rounds=rounds, memory=memory, drift=number)
        for i in range(2)
    )
    return make_ledger(*pair, seed=number)
