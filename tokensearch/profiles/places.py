"""Where time is spent: phases of blocks, and the profiler ranges that are named after them."""

import re
from typing import Literal, get_args

Phase = Literal[
    "stem",
    "norm",
    "qkv",
    "attention",
    "projection",
    "mlp",
    "bias",
    "scoring",
    "selecting",
    "gathering",
    "merging",
    "head",
    "other",
]
PHASES: tuple[Phase, ...] = get_args(Phase)
REDUCING: tuple[Phase, ...] = ("bias", "scoring", "selecting", "gathering", "merging")

Place = tuple[int | None, Phase]  # block, None outside the blocks
OUTSIDE: Place = (None, "other")  # within no range of ours

RANGE = "tokensearch"
PASS_RANGE = f"{RANGE}.pass"
# A trace may be anybody's: no model has blocks of five digits.
_RANGE = re.compile(rf"{re.escape(RANGE)}\.block\.(\d{{1,4}})\.({'|'.join(PHASES)})")
_PHASE_OF: dict[str, Phase] = {phase: phase for phase in PHASES}


def range_name(block: int, phase: Phase) -> str:
    """Name of the profiler range around one phase of one block, as the runtime writes it.

    >>> range_name(3, "mlp")
    'tokensearch.block.3.mlp'
    """
    return f"{RANGE}.block.{block}.{phase}"


def place_of(name: str) -> Place | None:
    """Which block and phase a range was put around; None if it is no range of the runtime.

    >>> place_of("tokensearch.block.3.mlp"), place_of("aten::linear")
    ((3, 'mlp'), None)
    """
    match = _RANGE.fullmatch(name)
    return (int(match[1]), _PHASE_OF[match[2]]) if match else None
