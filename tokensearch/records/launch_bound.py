"""Whether a GPU waits for its host: such a pass lasts as long as its launches, however few tokens.

Standard library only, so that a report can ask without torch.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["busy", "gaps", "bound"]

# Below this share of the pass a GPU waits for its host more than kernels wait for each other:
# back to back, kernels of a pass leave gaps of a few microseconds, which is far less.
BUSY = 0.8
# Of a pass in which the GPU works less than this, fewer tokens shorten the smaller part.
IDLE = 0.5
# A host that needs this share of the pass to enqueue it is what the pass waits for: the rest is the
# last kernel, and the way of one launch to the device.
ENQUEUING = 0.9

WAY_OUT = "try --backend cudagraph, or a larger batch"


@dataclass(frozen=True, slots=True)
class LaunchCost:
    """A pass that began on an idle device."""

    host_ms: float  # until the host had enqueued all of it
    pass_ms: float  # until the device was done

    @property
    def share(self) -> float:
        """What launching alone takes of the pass, below which no eager pass of a model comes."""
        return self.host_ms / self.pass_ms

    @property
    def bound(self) -> bool:
        """Whether the pass waits for its launches."""
        return launch_state(pass_ms=self.pass_ms, host_ms=self.host_ms) == "bound"

    @property
    def sentence(self) -> str:
        """Say that the pass is launch-bound, why, and what to do."""
        return (
            f"launch-bound: the host takes {self.host_ms:.3g} ms to launch a pass of "
            f"{self.pass_ms:.3g} ms, so fewer tokens cannot make it faster; {WAY_OUT}"
        )


def launch_state(
    *, pass_ms: float, busy_ms: float | None = None, host_ms: float | None = None
) -> State | None:
    """Say by what was measured of a pass whether it waits for its launches; None if nothing was.

    busy_ms  how long the device worked in it
    host_ms  how long the host took to enqueue it, on an idle device

    >>> launch_state(pass_ms=5.0, host_ms=4.9)
    'bound'
    """
    if host_ms is not None and host_ms >= ENQUEUING * pass_ms:
        return "bound"
    if busy_ms is None:
        return None if host_ms is None else "busy"
    if busy_ms < IDLE * pass_ms:
        return "bound"
    return "gaps" if busy_ms < BUSY * pass_ms else "busy"
