"""Whether a finished run looked where another target would have it look."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Moved(NamedTuple):
    """A reduced policy's latency, as a share of the un-reduced model's, in two cells."""

    then: float  # of the run
    now: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What a run searched, as shares of the un-reduced model's latency."""

    fastest: float  # that it holds
    slowest: float  # that it would have proposed: its target

    def doubt(self, limit: float, *, off: float, front: Path) -> str | None:
        """Say what to do where a target lies outside; None where it does not.

        limit  the target
        off    relative error of what is known of the fastest and the slowest
        """
        again = f"search with `tokensearch run --from {shlex.quote(str(front))}`"
        if limit < self.fastest * (1 - off):
            return (
                f"the run holds nothing faster than about {self.fastest:.2f}x, and {limit:.2f}x "
                f"is asked now: {again}"
            )
        if self.slowest * (1 + off) < limit < 1:
            return (
                f"the run proposed nothing slower than about {self.slowest:.2f}x, and {limit:.2f}x "
                f"is allowed now, where more accurate schedules may be: {again}"
            )
        return None


def searched(moved: Sequence[Moved], share: float) -> Searched:
    """Carry what a run searched over to the cell of its policies' new latencies.

    share  the run's target, in its own cell

    Policies say how much of a reduction is left in the new cell: as a power, so that 1 stays 1.

    >>> searched([Moved(0.5, 0.25), Moved(0.9, 0.81)], share=0.6)
    Searched(fastest=0.25, slowest=0.36)
    """
    powers = [log(one.now) / log(one.then) for one in moved if one.then < 1]
    slowest = share ** median(powers) if powers else share
    return Searched(min((one.now for one in moved), default=1.0), round(slowest, 6))
