"""The passes that a profile of one policy is made of.

Each kind of pass has a copy of the model to itself, so that nothing is attached or taken off while
the clock runs. The copies share their weights.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.export import prepare_backend
from tokensearch.measure import (
    PhaseTimer,
    Run,
    Turn,
    WorkCounter,
    clock_for,
    make_pass_turn,
    make_phase_turn,
)
from tokensearch.policy import Policy
from tokensearch.records.measurements import Backend, Cell
from tokensearch.records.profile import Phase

SPLIT: tuple[Backend, ...] = ("eager", "cudagraph")  # whose passes can be told apart by block


@dataclass(frozen=True)
class ProfilePasses:
    """What is run of one policy."""

    plain: Turn  # as the user runs it
    stamped: Turn
    stamps: PhaseTimer  # of the stamped turn
    floor: Turn | None  # stamped, the same counts at no price; None where nothing is reduced
    floor_stamps: PhaseTimer
    floor_plain: Turn | None  # the floor without stamps: what they are held against
    whole: Run  # what `plain` times
    traced: Run  # inside profiler ranges
    counted: Run  # inside `counting`'s ranges
    counting: WorkCounter


def copy_sharing_weights(model: nn.Module) -> nn.Module:
    """Copy modules, share weights: what is attached to one is not attached to the other."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def _no_range(block: int | None, phase: Phase) -> AbstractContextManager[object]:
    return nullcontext()


@contextmanager
def passes(model: nn.Module, policy: Policy, images: Tensor, cell: Cell) -> Iterator[ProfilePasses]:
    """Prepare the passes of `policy` on copies of `model`, which stay ready inside the `with`.

    A compiled pass can no longer be told apart by block: its stamps see a whole, and its floor is
    not run. A graph has its stamps captured with it; traced, it is a whole.
    """
    device, eager = torch.device(cell.device), cell.backend == "eager"
    stamps, floor_stamps, counting = PhaseTimer(device), PhaseTimer(device), WorkCounter()
    with ExitStack() as stack:

        def ranged(around: runtime.Around, *, floor: bool = False) -> nn.Module:
            copied = runtime.apply(copy_sharing_weights(model), policy)
            return stack.enter_context(runtime.phase_ranges(copied, around, floor=floor))

        def split(stamps: PhaseTimer, *, floor: bool = False) -> Turn:
            copied = ranged(stamps.around, floor=floor)
            return make_phase_turn(
                partial(copied, images)
                if eager
                else stamps.captured(copied, images, sharing=backed),
                stamps,
            )

        def plain_floor() -> Turn:
            copied = ranged(_no_range, floor=True)
            run = prepare_backend(copied, cell.backend, images, sharing=backed)
            return make_pass_turn(partial(run, images), clock_for(device))

        backed = prepare_backend(
            runtime.apply(copy_sharing_weights(model), policy), cell.backend, images
        )
        whole = partial(backed, images)
        splits = cell.backend in SPLIT
        floored = splits and policy.reduces
        yield ProfilePasses(
            plain=make_pass_turn(whole, clock_for(device)),
            whole=whole,
            stamped=split(stamps) if splits else make_phase_turn(whole, stamps),
            stamps=stamps,
            floor=split(floor_stamps, floor=True) if floored else None,
            floor_stamps=floor_stamps,
            floor_plain=plain_floor() if floored else None,
            traced=partial(ranged(runtime.traced_range), images) if eager else whole,
            counted=partial(ranged(counting.around), images),  # eager: what is computed is the same
            counting=counting,
        )
