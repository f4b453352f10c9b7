"""An exported policy in ONNX Runtime and in OpenVINO: neither torch nor tokensearch is needed.

tokensearch export tome-r13 --model demo --out demo.onnx
python -m examples.onnx_inference demo.onnx
"""

import sys
from pathlib import Path

import numpy as np


def run_onnxruntime(file: Path, images: np.ndarray) -> np.ndarray:
    """Return logits of images (B, 3, rows, columns), by ONNX Runtime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


def run_openvino(file: Path, images: np.ndarray) -> np.ndarray:
    """Return the same by OpenVINO, in full precision; on some processors it halves it unasked."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    return compiled({"images": images})[0]


def shape_of(file: Path) -> list[int]:
    """Return the shape of a batch that the file takes."""
    import onnxruntime

    return (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).get_inputs()[0].shape
    )


if __name__ == "__main__":
    exported = Path(sys.argv[1])
    batch = np.random.default_rng(0).standard_normal(shape_of(exported)).astype(np.float32)
    sys.stdout.write(f"{run_onnxruntime(exported, batch).argmax(axis=1)}\n")
