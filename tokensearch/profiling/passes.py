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
from tokensearch.records import Cell


@dataclass(frozen=True)
class Passes:
    """What is run of one policy."""

    plain: Turn  # as the user runs it
    stamped: Turn
    floor: Turn | None  # stamped, the same counts at no price; None where nothing is reduced
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

    A pass that is compiled or replayed can no longer be told apart by block: its stamps see a
    whole, and its floor is not run.
    """
    device = torch.device(cell.device)
    eager, stamps, counting = cell.backend == "eager", Stamps(device), Counting()
    with ExitStack() as stack:

        def backed() -> Run:
            copied = runtime.apply(twin(model), policy)
            return partial(runtime.backed(copied, cell.backend, images), images)

        def ranged(around: runtime.Around, *, floor: bool = False) -> Run:
            copied = runtime.apply(twin(model), policy)
            stack.enter_context(runtime.ranged(copied, around, floor=floor))
            return partial(copied, images)

        whole = backed()
        split = ranged(stamps.around) if eager else whole
        floor = ranged(stamps.around, floor=True) if eager and policy.reduces else None
        yield Passes(
            plain=plain(whole, clock_for(device)),
            whole=whole,
            stamped=stamped(split, stamps),
            floor=None if floor is None else stamped(floor, stamps),
            traced=ranged(runtime.traced_range) if eager else whole,
            counted=ranged(counting.around),  # eager: what is computed is the same
            counting=counting,
        )
