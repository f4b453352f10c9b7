"""ONNX, run in ONNX Runtime on the CPU. Its packages are optional, and imported when needed."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tokensearch.errors import ExportError
from tokensearch.export.pt2 import shapes

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LIMIT_BYTES = 2**31  # of one protobuf message, which an ONNX file is
ERRORS_ONLY = 3  # ONNX Runtime's level of logging


def check_possible(dtype: torch.dtype) -> None:
    """Refuse what is known not to work, before anything is loaded."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"--format onnx needs {', '.join(missing)}; pip install 'tokensearch[export]'"
        )
    if dtype == torch.bfloat16:
        raise ExportError(
            "bfloat16 cannot be exported to onnx: ONNX Runtime has no bfloat16 convolution on a "
            "CPU to check the file with; float16 can, and bfloat16 can to pt2"
        )


def save(
    program: ExportedProgram, path: Path, notes: Mapping[str, str], *, output: str, dynamic: bool
) -> None:
    """Write the file, with `notes` as its metadata."""
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size >= LIMIT_BYTES:
        raise ExportError(
            f"weights of {size / 1e9:.1f} GB do not fit into an onnx file, which ends at 2.1 GB; "
            f"--dtype float16 halves them, --format pt2 has no such limit"
        )
    whole = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=[output],
        dynamic_shapes=shapes(dynamic=dynamic),
        custom_translation_table=_translations(),
    )
    assert whole is not None
    whole.model.metadata_props.update(notes)
    whole.save(path)


def load(path: Path, *, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """Return what runs the file, on so many threads; 0: on as many as the library likes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.intra_op_num_threads = threads
    # Threads that wait for the next pass would take time from whatever is timed in turn with it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    return run


def runtime() -> str:
    """Return what runs the file."""
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Spell the two operators of ours that torch's exporter does not know in ONNX's own."""
    from onnxscript import opset18

    op: Any = opset18  # any set from 18 on has these

    def sort(x: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
        # TopK of all. Of equal values the standard puts the earlier first, both ways round, so
        # that it is stable.
        count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)

    def distances(first: Any, second: Any, p: float, mode: int | None = None) -> Any:
        # By the binomial formula: the differences themselves would fill (B, M, K, C).
        last = op.Constant(value_ints=[-1])
        squares = op.Add(
            op.ReduceSumSquare(first, last),
            op.Transpose(op.ReduceSumSquare(second, last), perm=[0, 2, 1]),
        )
        product = op.MatMul(first, op.Transpose(second, perm=[0, 2, 1]))
        return op.Sqrt(op.Relu(op.Sub(op.Sub(squares, product), product)))

    return {
        torch.ops.aten.sort.stable: sort,
        torch.ops.aten._cdist_forward.default: distances,
    }
