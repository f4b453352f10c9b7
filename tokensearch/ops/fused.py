"""Whether operators run as fused kernels, or as many small operations of PyTorch.

The kernels compute what the plain functions compute, in a tenth of the launches. They are taken on
NVIDIA GPUs where Triton is installed, for what they can do; the plain functions do all else: CPUs,
gradients, float64, exports.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from typing import Literal

import torch
from torch import Tensor

from tokensearch.errors import first_line

Kernels = Literal["auto", "torch", "triton"]
MOST_TOKENS = 4096  # ranking compares each token with each
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CAPABILITY = (8, 0)  # of GPUs from Ampere on: older ones spill what attention holds
MOST_ELEMENTS = 2**31  # of an image, and of what lies between its tokens: addresses are 32 bits
_HAS_TRITON = find_spec("triton") is not None and torch.version.hip is None
_wanted: Kernels = "auto"
_wishes: list[Kernels] = []  # of all threads, the last one holds
_lock = Lock()


@contextmanager
def use_kernels(kernels: Kernels) -> Iterator[None]:
    """Use these kernels inside, in all threads: for comparisons, and to rule the fused ones out.

    auto    fused where they can be, which is the default
    torch   never
    triton  wherever they take the tensors; without a GPU, Triton's interpreter runs them
    """
    _change(lambda: _wishes.append(kernels))
    try:
        yield
    finally:
        _change(lambda: _wishes.remove(kernels))


def _change(change: Callable[[], None]) -> None:
    global _wanted
    with _lock:
        change()
        _wanted = _wishes[-1] if _wishes else "auto"


def is_fused(x: Tensor, *others: Tensor | None) -> bool:
    """Whether fused kernels take these tensors, tokens along the last dimension but one of `x`."""
    if _wanted == "torch" or not (x.is_cuda or _wanted == "triton"):
        return False
    if not _HAS_TRITON or torch.compiler._is_exporting_flag or is_jit_tracing():
        return False
    if x.is_cuda and not (_is_current(x.device) and _runs_on(x.device.index)):
        return False
    return _fits(x, *others)


def kernels_of(device: torch.device, dtype: torch.dtype) -> Literal["torch", "triton"]:
    """Which kernels the operators of a model in `dtype` run on `device`."""
    wanted = _wanted == "triton" or (_wanted == "auto" and device.type == "cuda")
    fused = wanted and _HAS_TRITON and dtype in DTYPES
    if fused and device.type == "cuda":
        fused = _runs_on(device.index or 0)
    return "triton" if fused else "torch"


def _fits(x: Tensor, *others: Tensor | None) -> bool:
    tensors = [x, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if torch.autograd.forward_ad._current_level >= 0:  # derivatives of which tensors say nothing
        return False
    return (
        x.shape[-2] <= MOST_TOKENS
        and x.stride(-1) == 1
        and x.shape[-2] * x.stride(-2) < MOST_ELEMENTS
        and all(tensor.dtype in DTYPES and _is_plain(tensor) for tensor in tensors)
    )


def is_jit_tracing() -> bool:
    """Whether TorchScript records the call, which would keep our operators in its file."""
    return not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor has memory of its own: sharded or quantised ones are made of others."""
    return not hasattr(type(tensor), "__tensor_flatten__")


def _is_current(device: torch.device) -> bool:
    """Whether it is the GPU that kernels are launched on."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return True
    return device.index == torch.cuda.current_device()


def _runs_on(index: int) -> bool:
    """Whether Triton's kernels run on this GPU: one is tried, once, and a failure is said."""
    if index not in _tried:
        _tried[index] = _try_kernel(index)
    return _tried[index]


# As torch.compiler.assume_constant_result marks it, which loads torch's compiler: two seconds in
# every process, whether anything is compiled or not.
_runs_on._dynamo_marked_constant = True  # type: ignore[attr-defined]
_tried: dict[int, bool] = {}


def _try_kernel(index: int) -> bool:
    if not torch.cuda.is_available():  # a trace on a GPU that is not there
        return True
    if torch.cuda.get_device_capability(index) < CAPABILITY:
        return False
    try:
        from tokensearch.ops.triton import launch

        launch.run_rank(torch.zeros(1, 2, device=f"cuda:{index}"), 1, 0, False)
    except Exception as error:  # noqa: BLE001 - a compiler is missing, a driver too old, or what not
        reason = first_line(error)
        warnings.warn(
            f"token operators are not fused, since Triton's kernels do not run here: {reason}",
            stacklevel=2,
        )
        return False
    return True
