"""What a run searched, carried over to another cell: which targets it says little about."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import NamedTuple


class MovedCell(NamedTuple):
    """A reduced policy's latency, as a share of the baseline's, in two cells."""

    then: float  # of the run
    now: float


@dataclass(frozen=True, slots=True)
class SearchedCell:
    """What a run searched, as shares of the baseline's latency."""

    fastest: float  # that it holds
    slowest: float  # that it would have proposed: its target

    def doubt(self, target_ratio: float, *, off: float, front: Path) -> str | None:
        """Say what to do where a target lies outside; None where it does not.

        target_ratio  the target as a share of the baseline's latency
        off           relative error of what is known of the fastest and the slowest
        """
        again = f"search with `tokensearch run --from {shlex.quote(str(front))}`"
        if target_ratio < self.fastest * (1 - off):
            return (
                f"the run holds nothing faster than about {self.fastest:.2f}x, and "
                f"{target_ratio:.2f}x is asked now: {again}"
            )
        if self.slowest * (1 + off) < target_ratio < 1:
            return (
                f"the run proposed nothing slower than about {self.slowest:.2f}x, and "
                f"{target_ratio:.2f}x is allowed now, where more accurate schedules may be: {again}"
            )
        return None


def read_searched_cell(moved: Sequence[MovedCell], share: float) -> SearchedCell:
    """Carry what a run searched over to the cell of its policies' new latencies.

    share  the run's target, in its own cell

    Policies say how much of a reduction is left in the new cell: as a power, so that 1 stays 1.

    >>> read_searched_cell([MovedCell(0.5, 0.25), MovedCell(0.9, 0.81)], share=0.6)
    SearchedCell(fastest=0.25, slowest=0.36)
    """
    powers = [log(ratio.now) / log(ratio.then) for ratio in moved if ratio.then < 1]
    slowest = share ** median(powers) if powers else share
    return SearchedCell(min((ratio.now for ratio in moved), default=1.0), round(slowest, 6))
