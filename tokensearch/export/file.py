"""Write a file, run what was written, and keep it only if it computes what the model computes."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokensearch.errors import ExportError, TokensearchError, first_line
from tokensearch.export import onnx, pt2
from tokensearch.export.check import (
    ExportCheck,
    Format,
    answers,
    difference,
    export_name,
    tolerance,
)
from tokensearch.files import describe_refusal
from tokensearch.policy import check_static
from tokensearch.runtime import policy_of

SEED = 0


class Traced(nn.Module):
    """A model as it is exported: images in; logits out, or the features of the full grid."""

    def __init__(self, model: nn.Module, *, dense: bool) -> None:
        super().__init__()
        self.model, self.dense = model, dense

    def forward(self, images: Tensor) -> Tensor:
        """Run the part of the model that is wanted."""
        model: Any = self.model
        out: Tensor = model.forward_features(images) if self.dense else model(images)
        return out


def check_target(format: Format, dtype: torch.dtype) -> None:
    """Refuse what a format cannot do here, before a model is loaded: ExportError."""
    if format == "onnx":
        onnx.check_possible(dtype)


def export(
    model: nn.Module,
    images: tuple[int, ...],
    path: Path,
    *,
    format: Format,
    dense: bool = False,
    dynamic_batch: bool = False,
    notes: Mapping[str, str] | None = None,
) -> ExportCheck:
    """Write `model`, with the policy that it follows, to `path`; nothing is left if that fails.

    images         shape of a batch, (B, 3, rows, columns)
    dense          export `forward_features` instead of the logits (see `apply`)
    dynamic_batch  the file takes any number of images, not B alone
    notes          texts that travel in the file, by name

    ExportError if it cannot be written, cannot be run, or computes something else. PolicyError if
    counts differ from image to image.
    """
    check_static(policy_of(model), "an export")
    module = Traced(model, dense=dense).eval()
    dtype = next(model.parameters()).dtype
    batches = _batches(images, dtype, dynamic=dynamic_batch)
    expected = answers(module, batches)
    allowed, reason = tolerance(module, batches, expected)
    with _folder_beside(path) as folder:
        part = Path(folder) / path.name
        file = _File(format, part, "features" if dense else "logits", dynamic_batch, notes or {})
        outputs = _written_and_run(file, module, batches)
        check = ExportCheck(
            format=format,
            runtime=_FORMATS[format].runtime(),
            dtype=export_name(dtype),
            batches=tuple(len(batch) for batch in batches),
            max_abs_difference=difference(outputs, expected),
            tolerance=allowed,
            reason=reason,
            file_bytes=part.stat().st_size,
        )
        if not check.passed:
            raise ExportError(
                f"the {format} file gives other outputs than the model: they differ by up to "
                f"{check.max_abs_difference:.3g}, allowed is {allowed:.3g} ({reason})"
            )
        part.replace(path)
    return check


class _File(NamedTuple):
    """What is to be written."""

    format: Format
    path: Path
    output: str  # name of what comes out
    dynamic: bool
    notes: Mapping[str, str]


def _batches(images: tuple[int, ...], dtype: torch.dtype, *, dynamic: bool) -> list[Tensor]:
    """Random images: one batch, or several sizes for a file that takes any.

    The first is the exporter's example. A size of 1 would be taken for a constant.
    """
    count, *rest = images
    counts = (max(count, 2), max(count, 2) + 1, 1) if dynamic else (count,)
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randn(one, *rest, generator=generator).to(dtype) for one in counts]


@contextmanager
def _folder_beside(path: Path) -> Iterator[str]:
    """Make a folder for what is not yet known to be right, and leave none behind."""
    try:
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            yield folder
    except OSError as error:
        raise ExportError(describe_refusal(path, error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings, log lines below errors and what is printed to oneself; exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _written_and_run(file: _File, module: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    """Write the file and return its answers; exporters raise what they like."""
    tried = "exported to"
    try:
        with quiet(), torch.no_grad():
            _FORMATS[file.format].write(file, module, batches[0])
            tried = "run as"
            run = _FORMATS[file.format].load(file.path)
            return [run(images) for images in batches]
    except (TokensearchError, OSError):
        raise
    except Exception as error:
        raise ExportError(f"the model cannot be {tried} {file.format}: {_cause(error)}") from error


def _write_onnx(file: _File, module: nn.Module, example: Tensor) -> None:
    program = pt2.program_of(module, example, dynamic=file.dynamic)
    onnx.save(program, file.path, file.notes, output=file.output, dynamic=file.dynamic)


def _write_pt2(file: _File, module: nn.Module, example: Tensor) -> None:
    pt2.save(pt2.program_of(module, example, dynamic=file.dynamic), file.path, file.notes)


class _Format(NamedTuple):
    """How a file of one format is written and run."""

    write: Callable[[_File, nn.Module, Tensor], None]
    load: Callable[[Path], Callable[[Tensor], Tensor]]
    runtime: Callable[[], str]


_FORMATS: Mapping[Format, _Format] = {
    "onnx": _Format(_write_onnx, onnx.load, onnx.runtime),
    "pt2": _Format(_write_pt2, pt2.load, pt2.runtime),
}


def _cause(error: BaseException) -> str:
    """Return the first line of what began it: exporters wrap it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
