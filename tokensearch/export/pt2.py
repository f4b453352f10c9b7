"""PyTorch's own file: loading and running it takes torch alone."""

from collections.abc import Callable, Mapping
from functools import cache
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


@cache
def batch_size() -> Dim:
    """Return the size that is left open; made when it is needed, since that loads sympy."""
    return Dim("batch", min=1)


def program_of(module: nn.Module, images: Tensor, *, dynamic: bool) -> ExportedProgram:
    """Return the graph of `module`; with `dynamic`, for any number of images."""
    with torch.no_grad():
        return torch.export.export(module, (images,), dynamic_shapes=shapes(dynamic=dynamic))


def shapes(*, dynamic: bool) -> tuple[dict[int, Dim]] | None:
    """Say which sizes of the input are left open."""
    return ({0: batch_size()},) if dynamic else None


def save(program: ExportedProgram, path: Path, notes: Mapping[str, str]) -> None:
    """Write the file, with `notes` as files inside it.

    By way of memory: torch's own writer ends the process where the disk is full.
    """
    whole = BytesIO()
    torch.export.save(program, whole, extra_files=dict(notes))
    path.write_bytes(whole.getbuffer())


def load(path: Path) -> Callable[[Tensor], Tensor]:
    """Return what runs the file."""
    run: Callable[[Tensor], Tensor] = torch.export.load(path).module()
    return run


def runtime() -> str:
    """Return what runs the file."""
    return f"torch {torch.__version__}"
