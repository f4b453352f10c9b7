"""The passes that a profile of one policy is made of.

Each kind of pass has a copy of the model to itself, so that nothing is attached or taken off while
the clock runs. The copies share their weights.
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.measure import Counting, Run, Stamps, Turn, clock_for, plain, stamped
from tokensearch.policy import Policy
from tokensearch.records import Backend, Cell

SPLIT: tuple[Backend, ...] = ("eager", "cudagraph")  # whose passes can be told apart by block


@dataclass(frozen=True)
class Passes:
    """What is run of one policy."""

    plain: Turn  # as the user runs it
    stamped: Turn
    stamps: Stamps  # of the stamped turn
    floor: Turn | None  # stamped, the same counts at no price; None where nothing is reduced
    floor_stamps: Stamps
    whole: Run  # what `plain` times
    traced: Run  # inside profiler ranges
    counted: Run  # inside `counting`'s ranges
    counting: Counting


def twin(model: nn.Module) -> nn.Module:
    """Copy modules, share weights: what is attached to one is not attached to the other."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


@contextmanager
def passes(model: nn.Module, policy: Policy, images: Tensor, cell: Cell) -> Iterator[Passes]:
    """Prepare the passes of `policy` on copies of `model`, which stay ready inside the `with`.

    A compiled pass can no longer be told apart by block: its stamps see a whole, and its floor is
    not run. A graph has its stamps captured with it; traced, it is a whole.
    """
    device, eager = torch.device(cell.device), cell.backend == "eager"
    stamps, floor_stamps, counting = Stamps(device), Stamps(device), Counting()
    with ExitStack() as stack:

        def ranged(around: runtime.Around, *, floor: bool = False) -> nn.Module:
            copied = runtime.apply(twin(model), policy)
            return stack.enter_context(runtime.ranged(copied, around, floor=floor))

        def split(stamps: Stamps, *, floor: bool = False) -> Turn:
            copied = ranged(stamps.around, floor=floor)
            return stamped(
                partial(copied, images)
                if eager
                else stamps.captured(copied, images, sharing=backed),
                stamps,
            )

        backed = runtime.backed(runtime.apply(twin(model), policy), cell.backend, images)
        whole = partial(backed, images)
        splits = cell.backend in SPLIT
        yield Passes(
            plain=plain(whole, clock_for(device)),
            whole=whole,
            stamped=split(stamps) if splits else stamped(whole, stamps),
            stamps=stamps,
            floor=split(floor_stamps, floor=True) if splits and policy.reduces else None,
            floor_stamps=floor_stamps,
            traced=partial(ranged(runtime.traced_range), images) if eager else whole,
            counted=partial(ranged(counting.around), images),  # eager: what is computed is the same
            counting=counting,
        )
