"""What `profile` and `diff` work on: a model and a batch, to be timed and not to be right.

Counts are fixed by the policy, so how long a pass takes depends neither on the weights nor on what
the images show. Both are random: nothing is downloaded, and no data set is needed.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokensearch.models import ModelName
    from tokensearch.policy import ModelSpec, Policy
    from tokensearch.records import Backend, Cell


@dataclass(frozen=True)
class Timed:
    """A model with random weights and a batch of random images, in one cell."""

    model: "nn.Module"
    spec: "ModelSpec"
    images: "torch.Tensor"
    cell: "Cell"
    why: str = ""  # this backend, where there was a choice

    def fitting(self, policy: "Policy") -> "Policy":
        """Return a policy for this model, whatever weights it was found on."""
        from tokensearch.runtime import check

        check(self.model, replace(policy, model=replace(policy.model, weights=None)))
        return replace(policy, model=self.spec)


def timed(
    name: "ModelName",
    *,
    device: str,
    dtype: str,
    batch: int,
    backend: "Backend | Literal['auto']",
    seed: int,
) -> Timed:
    """Prepare a model by its full name; ModelError or MeasurementError if it cannot be run so."""
    import torch

    from tokensearch.cli.auto import check_named, resolve_backend, resolve_device, resolve_dtype
    from tokensearch.cli.subject import check_forward
    from tokensearch.measure import attention_of, describe_cell
    from tokensearch.models import input_pixels, skeleton, untrained
    from tokensearch.runtime import describe

    place = resolve_device(device)
    kind = getattr(torch, resolve_dtype(dtype, place))
    describe(skeleton(name))  # what cannot follow a policy is refused before it is built
    check_named(backend, place)
    torch.manual_seed(seed)
    model = untrained(name).to(place, kind)
    side = input_pixels(model)
    images = torch.randn(batch, 3, side, side).to(place, kind)
    check_forward(name, model, images[:1])
    chosen, why = resolve_backend(backend, model, images[:1])
    cell = describe_cell(place, kind, batch, side, backend=chosen, attention=attention_of(model))
    return Timed(model, describe(model, name=name), images, cell, why)
