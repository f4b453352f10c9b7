"""How an exported file compares with the model that it was made from."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

Format = Literal["onnx", "pt2"]


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """Outputs of a file beside those of the model in eager mode, on the same random images."""

    format: Format
    runtime: str  # what ran the file
    dtype: str
    batches: tuple[int, ...]  # images of each pass that was compared
    max_abs_difference: float
    tolerance: float
    reason: str  # of the tolerance
    file_bytes: int

    @property
    def passed(self) -> bool:
        """Whether rounding explains the difference; what is not a number explains nothing."""
        return self.max_abs_difference <= self.tolerance


def answers(module: nn.Module, batches: Sequence[Tensor]) -> list[Tensor]:
    """Run the batches through, in eager mode."""
    with torch.no_grad():
        return [module(images) for images in batches]


def difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest absolute difference; nan where one is, or where shape or type differ."""
    if [(one.shape, one.dtype) for one in outputs] != [(one.shape, one.dtype) for one in expected]:
        return float("nan")
    pairs = zip(outputs, expected, strict=True)
    each = [(one.double() - other.double()).abs().max() for one, other in pairs]
    return torch.stack(each).max().item()


def tolerance(
    module: nn.Module, batches: Sequence[Tensor], expected: Sequence[Tensor]
) -> tuple[float, str]:
    """Return how far off a right file may be, and why.

    Other kernels add up in another order, which moves the last digits; where two tokens are nearly
    alike, a moved digit has another one kept. So a file may be off by half the digits of the number
    type, or by twice as much as the model is off its own answers in a wider type, if that is more:
    once for the model's rounding, once for the file's.
    """
    dtype = batches[0].dtype
    largest = max(one.abs().max().item() for one in expected)
    half = sqrt(torch.finfo(dtype).eps) * largest
    wide = torch.float64 if dtype == torch.float32 else torch.float32
    exact = answers(copy.deepcopy(module).to(wide), [images.to(wide) for images in batches])
    twice = 2 * difference([one.to(wide) for one in expected], exact)
    if twice > half:
        return twice, f"twice what {export_name(dtype)} itself is off {export_name(wide)}"
    return half, f"half the digits of {export_name(dtype)}, for outputs up to {largest:.3g}"


def export_name(dtype: torch.dtype) -> str:
    """Return what the command line calls a number type."""
    return str(dtype).removeprefix("torch.")
