"""Device, number type and backend as the user names them, and what `auto` stands for here."""

from typing import Final, Literal, get_args

import torch
from torch import nn

from tokensearch.errors import MeasurementError
from tokensearch.export import check_exported
from tokensearch.records.measurements import EXPORTED, Backend, Cell
from tokensearch.runtime import check_backend, choose_backend

DTypeName = Literal["float32", "float16", "bfloat16"]
AUTO: Final = "auto"


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`, for `auto` the GPU if there is one; MeasurementError if not.

    `cuda` is the GPU that torch uses now. The one asked for becomes that: streams and events that
    name no device are then its own.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = name if name != AUTO else "cuda" if count else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    gpus = {f"cuda:{index}": index for index in range(count)}
    if count:
        gpus["cuda"] = torch.cuda.current_device()
    if wanted not in gpus:
        several = [f"cuda:{index}" for index in range(count)]
        here = ", ".join(["cpu", *(["cuda"] if count == 1 else several)])
        raise MeasurementError(f"device {name!r} is not on this machine; it has {here}")
    torch.cuda.set_device(gpus[wanted])
    return torch.device("cuda", gpus[wanted])


def resolve_dtype(name: str, device: torch.device) -> DTypeName:
    """Return the number type called `name`, for `auto` what people deploy on `device`.

    That is half precision on a GPU: bfloat16 where its own arithmetic has it, else float16.
    """
    if name == AUTO:
        if device.type != "cuda":
            return "float32"
        own = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if own else "float16"
    for known in get_args(DTypeName):
        if name == known:
            return known  # type: ignore[no-any-return]  # one of the literals
    listed = ", ".join(get_args(DTypeName))
    raise MeasurementError(f"number type {name!r} is unknown; known are {listed}")


def check_named(backend: str, device: torch.device, dtype: torch.dtype) -> None:
    """See whether a backend that was named works on `device`, before anything is loaded.

    Raises:
        MeasurementError: None is called that.
        ModelError: It does not work here.
        ExportError: It needs other packages, another device or number type.
    """
    if backend == AUTO:
        return
    for known in get_args(Backend):
        if backend == known:
            if known in EXPORTED:
                check_exported(known, device, dtype)
            else:
                check_backend(known, device)
            return
    listed = ", ".join(get_args(Backend))  # a file says what it likes
    raise MeasurementError(f"backend {backend!r} is unknown; known are {listed}")


def resolve_backend(
    name: Backend | Literal["auto"], model: nn.Module, images: "torch.Tensor"
) -> tuple[Backend, str]:
    """Return the backend called `name`, for `auto` the fastest that is at hand at once, and why.

    Why is a sentence where there was a choice, else empty.
    """
    if name != AUTO:
        return name, ""
    chosen, obstacle = choose_backend(model, images)
    if obstacle is not None:
        return chosen, f"--backend auto is {chosen} here: {obstacle}"
    if chosen == "cudagraph":
        return chosen, "--backend auto is cudagraph here, since the model could be captured"
    return chosen, ""


def name_cell(cell: Cell) -> str:
    """Name a cell in words, as the first line of a command's output does.

    `cuda (NVIDIA H100), bfloat16, batch 8, cudagraph`
    """
    gpu = "" if cell.machine.accelerator is None else f" ({cell.machine.accelerator})"
    unfused = ", token operators not fused" if cell.kernels == "torch" else ""
    return f"{cell.device}{gpu}, {cell.dtype}, batch {cell.batch}, {cell.backend}{unfused}"


def device_slug(cell: Cell) -> str:
    """Name a cell's device in a folder: `cuda1` for `cuda:1`, as colons are not for paths."""
    return cell.device.replace(":", "")
