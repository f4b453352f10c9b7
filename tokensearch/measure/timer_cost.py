"""The price of a stamp: what a border adds to a pass, measured and taken off.

While a GPU waits for the host, a border costs what the host spends on it: microseconds, of which
a pass has 150 to 250. While the GPU has work in its queue, the same border is hidden behind it and
costs next to nothing; inside a graph it is one node more. So the price is measured in the open, on
ranges that hold next to nothing, and of a given pass no more is taken off than it took longer than
a plain one. What exceeds the price stays in the parts, and in a ledger's residual.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from tokensearch.measure.clock import clock_for
from tokensearch.measure.interleaved import (
    TimingBudget,
    make_pass_turn,
    make_phase_turn,
    time_interleaved,
)
from tokensearch.measure.phase_timer import PhaseTimer
from tokensearch.records.profile import Scope
from tokensearch.runtime.profiler_ranges import block_ranges

RANGES = 64  # two borders each: as many as a pass of twelve blocks has
# Medians of so many pairs of passes; a millisecond each where a kernel takes its launch.
ROUNDS = TimingBudget(warmup=5, min_rounds=40, max_rounds=40, seconds=1.0)


class _Bit(nn.Module):
    """Next to no work."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def phase_border_ms(device: torch.device, *, captured: bool = False) -> float:
    """Return the milliseconds that a border adds where nothing hides it: in a graph, or eager.

    The ranges are put around modules by hooks, as the runtime puts most of a model's.
    """
    bare, ranged = _bits(), _bits()
    x, stamps = torch.zeros(1, device=device), PhaseTimer(device)
    with torch.inference_mode(), block_ranges(ranged, stamps.around):
        if captured:
            without, within = PhaseTimer(device).captured(bare, x), stamps.captured(ranged, x)
        else:
            without, within = partial(bare, x), partial(ranged, x)
        turns = (make_pass_turn(without, clock_for(device)), make_phase_turn(within, stamps))
        wholes, splits = time_interleaved(turns, ROUNDS, seed=0)
    longer_ms = median(one.ms - other.ms for one, other in zip(splits, wholes, strict=True))
    return max(0.0, longer_ms / len(stamps.borders))


def _bits() -> nn.Sequential:
    return nn.Sequential(*(nn.Sequential(OrderedDict(norm=_Bit())) for _ in range(RANGES)))


def timer_cost_ms(longer_ms: float, borders: float, most_ms: float) -> float:
    """Return what to take off for each border of a pass.

    longer_ms  what the split pass takes longer than a plain one
    borders    of the pass
    most_ms    price of a border that nothing hides
    """
    return min(most_ms, max(0.0, longer_ms / borders)) if borders else 0.0


def subtract_timer_cost(
    parts_ms: Mapping[Scope, float], shares: Mapping[Scope, float], border_ms: float
) -> dict[Scope, float]:
    """Take the price of its borders off every part; a part that is all price took 0 ms."""
    return {
        scope: max(0.0, ms - border_ms * shares.get(scope, 0.0)) for scope, ms in parts_ms.items()
    }
