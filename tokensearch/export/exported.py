"""Backends that run an exported file: what is timed is what is deployed.

A file is written for the batch at hand, checked against the model, and loaded; nothing is left of
it on the disk.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from tokensearch import runtime
from tokensearch.errors import ExportError
from tokensearch.export import onnx
from tokensearch.export.check import answers, difference, tolerance
from tokensearch.export.file import export
from tokensearch.policy import check_static
from tokensearch.records.measurements import EXPORTED, Backend
from tokensearch.runtime import Forward

EXTRAS: Mapping[Backend, str] = {"onnxruntime": "export", "openvino": "openvino"}
PRECISIONS = {torch.float32: "f32", torch.float16: "f16"}


def check_exported(backend: Backend, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a backend of an exported file that cannot work here: ExportError."""
    needed = dict.fromkeys((*onnx.PACKAGES, backend))
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ExportError(
            f"backend {backend} needs {', '.join(missing)}; pip install "
            f"'tokensearch[{EXTRAS[backend]}]'"
        )
    if device.type != "cpu":
        raise ExportError(
            f"backend {backend} runs on the CPU here, not on {device.type}; give --device cpu, or "
            f"take eager, compile or cudagraph"
        )
    if dtype not in PRECISIONS:
        raise ExportError(
            f"backend {backend} runs float32 and float16, not {str(dtype).removeprefix('torch.')}; "
            f"give --dtype float32"
        )


def prepare_backend(
    model: nn.Module, backend: Backend, images: Tensor, *, sharing: Forward | None = None
) -> Forward:
    """Return what runs `model` by any backend, those of exported files too.

    Arguments are those of `runtime.with_backend`.

    Raises:
        ModelError: The backend cannot work.
        ExportError: The model cannot be exported, or its file computes something else.
        PolicyError: Counts differ from image to image.
    """
    if backend not in EXPORTED:
        return runtime.with_backend(model, backend, images, sharing=sharing)
    check_static(runtime.policy_of(model), f"backend {backend}")
    check_exported(backend, images.device, images.dtype)
    with TemporaryDirectory() as folder, torch.inference_mode(mode=False):
        file = Path(folder) / "model.onnx"
        export(model, tuple(images.shape), file, format="onnx")
        run = _load(file, backend, images.dtype)
    if backend == "openvino":  # `export` has compared what ONNX Runtime makes of the file
        _check_outputs(run(images), model, images)
    else:
        run(images)
    return run


def _check_outputs(outputs: Tensor, model: nn.Module, images: Tensor) -> None:
    expected = answers(model, [images])
    allowed, reason = tolerance(model, [images], expected)
    if not (off := difference([outputs], expected)) <= allowed:
        raise ExportError(
            f"OpenVINO's outputs for the exported file are off the model's by {off:.3g}, allowed "
            f"is {allowed:.3g} ({reason}); take --backend onnxruntime"
        )


def _load(file: Path, backend: Backend, dtype: torch.dtype) -> Forward:
    threads = torch.get_num_threads()  # as many as the cell says
    if backend == "openvino":
        return _load_openvino(file, threads, PRECISIONS[dtype])
    return onnx.load(file, threads=threads)


def _load_openvino(file: Path, threads: int, precision: str) -> Forward:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,  # else some processors halve it unasked
        "ENABLE_MMAP": False,  # the file goes away
    }
    compiled: Any = openvino.Core().compile_model(str(file), "CPU", settings)

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(compiled({"images": images.numpy()})[0].copy())

    return run
