"""Logits of a policy, from the deepest block that an earlier pass went through the same way."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from torch import Tensor, nn

from tokensearch.errors import MeasurementError
from tokensearch.evaluate.reuse import Reuse
from tokensearch.policy import Policy
from tokensearch.runtime import captured, check_resumes, entering_key, logits_from, policy_of
from tokensearch.runtime.resume import Image


@dataclass(frozen=True)
class Batch:
    """Images that have a name, and are loaded only when a pass needs them.

    Batches that are cut differently are different: matrix products of another size round otherwise.
    """

    split: str  # digest
    first: int  # place of the first image in the split
    count: int  # B
    image: Image  # shape of each: 3, rows, columns
    load: Callable[[], Tensor] = field(compare=False)  # -> (B, 3, rows, columns), as the model's

    def images(self) -> Tensor:
        """Load the images; MeasurementError if they are not what the name says."""
        images, named = self.load(), (self.count, *self.image)
        if tuple(images.shape) != named:
            raise MeasurementError(
                f"a batch was loaded as {tuple(images.shape)}, where {named} was promised"
            )
        return images


def logits(model: nn.Module, batch: Batch, store: Reuse) -> Tensor:
    """Return what `model`, under the policy that it follows, answers to a batch: (B, K).

    The same bits as those of a whole pass. The pass starts at the deepest block for which `store`
    holds what enters it, and leaves there what enters each later block that reduces.

    Raises:
        ModelError: The model cannot start in the middle.
        MeasurementError: The batch is not what its name says.
    """
    policy = policy_of(model)
    if policy is None:
        return _whole(model, batch)
    blocks = range(policy.model.blocks)[::-1]
    found = store.first(_key(model, batch, block) for block in blocks)
    if found is None:
        return fill(model, batch, boundaries(policy), store)
    place, features = found
    start = blocks[place]
    check_resumes(model, batch.image)  # before anything is captured: it makes passes of its own
    later = [block for block in boundaries(policy) if block > start]
    with captured(model, later, _keeping(model, batch, store)):
        return logits_from(model, start, features, image=batch.image)


def fill(model: nn.Module, batch: Batch, blocks: Iterable[int], store: Reuse) -> Tensor:
    """Run one whole pass, leave in `store` what enters each of `blocks`, and return its logits.

    Of a model that follows no policy, these are the blocks at which any policy may begin to reduce.
    """
    with captured(model, blocks, _keeping(model, batch, store)):
        return _whole(model, batch)


def boundaries(policy: Policy) -> tuple[int, ...]:
    """Blocks that reduce: policies that differ from `policy` in one of them share all before."""
    reducing = {step.block for step in policy.steps}
    if policy.last_block == "prefix_only":
        reducing.add(policy.model.blocks - 1)
    return tuple(sorted(reducing))


def _whole(model: nn.Module, batch: Batch) -> Tensor:
    whole: Tensor = model(batch.images())
    return whole


def _keeping(model: nn.Module, batch: Batch, store: Reuse) -> Callable[[int, Tensor], None]:
    return lambda block, x: store.put(_key(model, batch, block), x)


def _key(model: nn.Module, batch: Batch, block: int) -> Hashable:
    return batch, entering_key(model, block)
