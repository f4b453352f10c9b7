"""What steps have learned, as buffers of the blocks that use it.

Buffers move with the model to other devices and number types, and graphs and exports know them.
They are not persistent: the weights of a model under a policy have the names that they always have.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from tokensearch.errors import PolicyError
from tokensearch.policy import Policy, RawTensor, Step
from tokensearch.policy.steps import roles_of

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def read_tensors(policy: Policy) -> dict[str, Tensor]:
    """Return the tensors of a policy, by the names that they have in its file."""
    if policy.tensors is None:
        return {}
    return {name: _as_tensor(name, raw) for name, raw in policy.tensors.by_name.items()}


def learned(block: nn.Module, step: Step, role: str) -> Tensor:
    """Return what `step` has learned for `role`, of the block that it acts in."""
    tensor: Tensor = getattr(block, _buffer(step, role))
    return tensor


def make_buffers(
    block: nn.Module, steps: Iterable[Step], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return what a block's steps have learned, on its device and in its number type, by buffer."""
    # The weights of quantised layers may be integers; those of norms never are.
    like = next((one for one in block.parameters() if one.is_floating_point()), None)
    return {
        _buffer(step, role): tensors[name] if like is None else tensors[name].to(like)
        for step in steps
        for role, name in roles_of(step).items()
    }


def make_trainable(block: nn.Module, steps: Iterable[Step]) -> Iterator[tuple[str, nn.Parameter]]:
    """Make parameters of what a block was given; yields each by its name in the tensors file.

    They go with the policy, as the buffers would have.
    """
    for step in steps:
        for role, name in roles_of(step).items():
            parameter = nn.Parameter(learned(block, step, role).detach().clone())
            delattr(block, _buffer(step, role))
            block.register_parameter(_buffer(step, role), parameter)
            yield name, parameter


def _buffer(step: Step, role: str) -> str:
    """Name of a buffer: a block has at most one step of a kind."""
    return f"_tokensearch_{step.op}_{role.replace('.', '_')}"


def _as_tensor(name: str, raw: RawTensor) -> Tensor:
    dtype = _DTYPES[raw.dtype]
    tensor = torch.frombuffer(bytearray(raw.data), dtype=dtype).reshape(raw.shape)
    if not tensor.isfinite().all():
        raise PolicyError(
            f"the tensor {name!r:.60} holds what is not finite; take the tensors of an earlier "
            f"checkpoint"
        )
    return tensor
