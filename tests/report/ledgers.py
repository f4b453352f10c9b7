"""A ledger whose every term is chosen: what each test shows can be added up by hand.

Four blocks of 100 tokens, 6 ms each; block 1 pools to 50 tokens, block 3 prunes to 40.

    saved    -4.8 MLP (1.5 + 1.5 + 1.8 in blocks 1, 2, 3), -2 attention, -1 qkv   -7.8
    spent    +0.8 selecting, +0.6 merging, +0.2 bias                              +1.6
    shifted  +0.5 attention                                                       +0.5
    residual                                                                      +0.1
    passes   26 ms, 20.4 ms                                                       -5.6
"""

from dataclasses import replace
from typing import Any

from tests.report.profiles import Parts, passes, profile
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.policy import ModelSpec, Policy, Pool, Prune
from tokensearch.records.measurements import Latency
from tokensearch.records.profile import Operator, Phase, Profile, Scope, Work

SPEC = ModelSpec("toy", blocks=4, patch_tokens=100, prefix_tokens=1, width=64)
FULL = Policy(SPEC)
HALVED = Policy(SPEC, (Pool(1, 50), Prune(3, 40)), proportional_attention=True)

BEFORE: Parts = {
    (None, "stem"): 1.0,
    **{(block, "qkv"): 1.0 for block in range(4)},
    **{(block, "attention"): 2.0 for block in range(4)},
    **{(block, "mlp"): 3.0 for block in range(4)},
    (None, "head"): 1.0,
}
FLOOR: Parts = {
    **BEFORE,
    **{(block, "qkv"): 0.5 for block in (2, 3)},
    **{(block, "attention"): 1.0 for block in (2, 3)},
    **{(block, "mlp"): 1.5 for block in (1, 2)},
    (3, "mlp"): 1.2,
}
SPENT: Parts = {
    (1, "selecting"): 0.4,
    (1, "merging"): 0.6,
    (2, "bias"): 0.1,
    (3, "bias"): 0.1,
    (3, "selecting"): 0.4,
}
AFTER: Parts = {**FLOOR, **SPENT, **{(block, "attention"): 1.25 for block in (2, 3)}}
NOISE: Parts = {**{scope: 0.001 * ms for scope, ms in AFTER.items()}, (0, "mlp"): 0.05}
WORK = 1e9  # per millisecond: as if time fell exactly as work does


def baseline(**fields: Any) -> Profile:
    return replace(profile(FULL, BEFORE, name="baseline", plain_ms=26.0), **fields)


def candidate(*, plain_ms: float = 20.4, noise_ms: float = 0.2, **fields: Any) -> Profile:
    """`noise_ms` is on the plain passes, and thereby on the residual."""
    made = profile(HALVED, AFTER, name="halved", plain_ms=plain_ms, floor=FLOOR, noise=NOISE)
    return replace(made, **{"plain": Latency(passes(plain_ms, noise_ms), warmup=3), **fields})


def of_known_terms(**fields: Any) -> Ledger:
    return make_ledger(baseline(), candidate(**fields))


def of_itself() -> Ledger:
    """The baseline against itself."""
    noise = {scope: 0.02 * ms for scope, ms in BEFORE.items()}
    again = profile(FULL, BEFORE, name="again", plain_ms=26.0, noise=noise)
    return make_ledger(baseline(), replace(again, plain=Latency(passes(26.0, 0.2), warmup=3)))


def work(parts: Parts) -> tuple[Work, ...]:
    return tuple(Work(*scope, flop=WORK * ms, bytes=0.0) for scope, ms in parts.items())


def operator(scope: Scope, name: str, ms: float, *, kernel: bool = False) -> Operator:
    traced = tuple(ms * (1 + 0.001 * number) for number in range(-2, 3))
    return Operator(*scope, name, kernel, 1.0, traced)


def in_every_block(phase: Phase, name: str, ms: float, *, kernel: bool = False) -> list[Operator]:
    return [operator((block, phase), name, ms, kernel=kernel) for block in range(4)]
