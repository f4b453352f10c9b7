"""How a model is run: as it is, compiled, or as a captured CUDA graph.

A policy fixes every count, so no batch takes another path than the one before. That is what
compiled programs and graphs need.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch.errors import ModelError, first_line
from tokensearch.policy import check_static
from tokensearch.records.measurements import Backend
from tokensearch.runtime.attach import policy_of

Forward = Callable[[Tensor], Tensor]
_Compiler = str | Callable[..., Any]  # what torch.compile calls a backend

# Passes before a capture, on a stream of its own: libraries set themselves up in the first ones,
# which may not happen inside a capture. As many as PyTorch's notes on CUDA graphs run.
PASSES_BEFORE_CAPTURE = 3


def with_backend(
    model: nn.Module,
    backend: Backend,
    example: Tensor,
    *,
    compiler: _Compiler = "inductor",
    sharing: Forward | None = None,
) -> Forward:
    """Return what runs `model` by `backend` on batches like `example`, warmed up on it.

    eager      the model itself
    compile    one graph for the whole model and the shape of `example`; another shape is compiled
               when it comes. `compiler` is what torch.compile calls a backend
    cudagraph  captured once and replayed; another shape is refused. `sharing` is another replay
               whose memory this graph may use: for graphs that are never replayed at one time
    compile-cudagraph
               compiled, then captured

    Call it as it was made, under `torch.inference_mode` or not, with images that were made in the
    same mode as `example`: compiled code is for one of the two. A model that is given another
    policy must be backed anew.

    ModelError where the backend cannot work.
    """
    if backend != "eager":
        check_static(policy_of(model), f"backend {backend}")
    match backend:
        case "eager":
            return model
        case "compile":
            return _compiled(model, example, compiler)
        case "cudagraph":
            return _captured(model, example, sharing, None)
        case "compile-cudagraph":
            return _captured(model, example, sharing, compiler)
        case "onnxruntime" | "openvino":
            raise ModelError(
                f"backend {backend} runs an exported file and no torch model; "
                f"tokensearch.export.prepare_backend makes one"
            )


def check_backend(backend: Backend, device: torch.device) -> None:
    """See whether `backend` works on `device` before anything relies on it; ModelError if not."""
    with torch.inference_mode():
        with_backend(nn.GELU(), backend, torch.ones(8, device=device))


def choose_backend(model: nn.Module, example: Tensor) -> tuple[Backend, str | None]:
    """Return `cudagraph` where `model` can be captured, else `eager` and what stands in the way.

    Tried on `example`, on the device of the model. Elsewhere than on a GPU nothing can be captured,
    and nothing stands in the way. Nobody waits for a compiler who has not asked for one.
    """
    if example.device.type != "cuda":
        return "eager", None
    try:
        with torch.inference_mode():
            with_backend(model, "cudagraph", example)
    except ModelError as error:
        return "eager", str(error)
    return "cudagraph", None


def _compiled(model: nn.Module, example: Tensor, compiler: _Compiler) -> Forward:
    run = torch.compile(_own_code(model), fullgraph=True, dynamic=False, backend=compiler)
    try:
        run(example)
    except RuntimeError as error:  # the base of what the compiler raises, cause inside
        reason = first_line(getattr(error, "inner_exception", error))
        raise ModelError(f"a {type(model).__name__} cannot be compiled here: {reason}") from error
    return run


def _own_code(model: nn.Module) -> Forward:
    """Return a function that calls `model`, with a code object of its own.

    The compiler keeps what it compiled by code object, tries entry after entry in each call, and
    gives up after eight. Candidates of a search, and their baseline, must not share one.
    """

    def run(images: Tensor) -> Tensor:
        out: Tensor = model(images)
        return out

    code: CodeType = run.__code__.replace()
    return FunctionType(code, run.__globals__, run.__name__, None, run.__closure__)


@dataclass(frozen=True, eq=False)
class _Captured:
    """A CUDA graph, with the memory that it reads and writes."""

    model: nn.Module  # whose weights it reads
    graph: torch.cuda.CUDAGraph
    images: Tensor
    out: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Replay the graph on `images`; what it returns is the caller's."""
        if images.shape != self.images.shape or images.dtype != self.images.dtype:
            raise ModelError(
                f"the CUDA graph was captured for images of {_kind(self.images)}, not of "
                f"{_kind(images)}; capture one for these"
            )
        self.images.copy_(images)
        self.graph.replay()
        return self.out.clone()  # the next replay writes over it


def _captured(
    model: nn.Module, example: Tensor, sharing: Forward | None, compiler: _Compiler | None
) -> Forward:
    if example.device.type != "cuda":
        raise ModelError(
            f"backend cudagraph needs an NVIDIA GPU and runs on {example.device.type}; take eager "
            "or compile"
        )
    try:
        return _capture(model, example, sharing, compiler)
    except RuntimeError as error:
        raise ModelError(
            f"a {type(model).__name__} cannot be captured as a CUDA graph: {first_line(error)}"
        ) from error


def _capture(
    model: nn.Module, example: Tensor, sharing: Forward | None, compiler: _Compiler | None
) -> Forward:
    pool = sharing.graph.pool() if isinstance(sharing, _Captured) else None
    # Not as inference tensors, which nothing could be copied into outside that mode.
    with torch.inference_mode(mode=False), torch.no_grad(), _own_stream(example.device):
        images, aside = example.clone(), _side_stream(torch.cuda.current_device())
        run = model if compiler is None else _compiled(model, images, compiler)
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(PASSES_BEFORE_CAPTURE):
                run(images)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=aside):
            out = run(images)
    if not isinstance(out, Tensor):
        kind = type(out).__name__
        raise ModelError(f"a {type(model).__name__} returns {kind}; a CUDA graph needs one tensor")
    return _Captured(model, graph, images, out)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """Use a device, and its current stream again afterwards: a failed capture leaves its own."""
    with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream()):
        yield


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    """Where everything is captured on a device: graphs that share memory must have one stream.

    The default of torch.cuda.graph is a stream of whichever device was captured on first.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's gap


def _kind(images: Tensor) -> str:
    return f"{'x'.join(map(str, images.shape))} {str(images.dtype).removeprefix('torch.')}"
