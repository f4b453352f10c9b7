"""A model of random weights and a batch of random images, to time something again in a cell."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from tokensearch.cli.goal import TOKENS
from tokensearch.cli.inputs import check_device, check_forward
from tokensearch.cli.options import ImgSizeOption, ModelKwargsOption, read_options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tokensearch.models import ModelName, Options
    from tokensearch.policy import ModelSpec, Policy
    from tokensearch.records.measurements import Backend, Cell


@dataclass(frozen=True)
class TimingSubject:
    """A model with random weights and a batch of random images, in one cell."""

    model: "nn.Module"
    spec: "ModelSpec"
    images: "torch.Tensor"
    cell: "Cell"
    why: str = ""  # this backend, where there was a choice
    dense: bool = False  # whether it returns its tokens

    def fitting(self, policy: "Policy") -> "Policy":
        """Return a policy for this model, whatever weights it was found on."""
        from tokensearch.runtime import check_policy

        check_policy(self.model, replace(policy, model=replace(policy.model, weights=None)))
        return replace(policy, model=self.spec)


def make_timing_subject(
    name: "ModelName",
    *,
    device: str,
    dtype: str,
    batch: int,
    backend: "Backend | Literal['auto']",
    seed: int,
    options: "Options | None" = None,
) -> TimingSubject:
    """Prepare a model by its full name; ModelError or MeasurementError if it cannot be run so."""
    import torch

    from tokensearch.measure import attention_of, describe_cell
    from tokensearch.measure.resolve_cell import (
        check_named,
        resolve_backend,
        resolve_device,
        resolve_dtype,
    )
    from tokensearch.models import input_pixels, skeleton, untrained
    from tokensearch.runtime import describe

    resolved = resolve_device(device)
    kind = getattr(torch, resolve_dtype(dtype, resolved))
    describe(
        skeleton(name, options or {})
    )  # what cannot follow a policy is refused before it is built
    check_named(backend, resolved, kind)
    torch.manual_seed(seed)
    model = untrained(name, options or {}).to(resolved, kind)
    rows, columns = input_pixels(model)
    images = torch.randn(batch, 3, rows, columns).to(resolved, kind)
    dense = check_forward(name, model, images[:1]).ndim == TOKENS
    chosen, why = resolve_backend(backend, model, images[:1])
    attention = attention_of(model)
    cell = describe_cell(
        resolved, kind, batch, rows, backend=chosen, attention=attention, columns=columns
    )
    return TimingSubject(model, describe(model, name=name), images, cell, why, dense)


@dataclass(frozen=True, slots=True)
class CellOverrides:
    """The model and the cell in which something is timed again; what is None stays as it was."""

    model: Annotated[
        str | None,
        Option(
            "--model",
            metavar="NAME",
            help="as in `run`; needed where the file names one of your own, which is loaded only "
            "if you name it",
        ),
    ] = None
    img_size: ImgSizeOption = None
    model_kwargs: ModelKwargsOption = None
    device: Annotated[
        str | None,
        Option("--device", metavar="NAME", help="default: the one that it was timed on before"),
    ] = None
    batch_size: Annotated[
        int | None,
        Option("--batch-size", min=1, metavar="N", help="default: as it was timed before"),
    ] = None
    backend: Annotated[
        Literal[
            "auto", "eager", "compile", "cudagraph", "compile-cudagraph", "onnxruntime", "openvino"
        ]
        | None,
        Option("--backend", help="default: as it was timed before; on a CPU, eager for graphs"),
    ] = None

    def __post_init__(self) -> None:
        """Refuse a device that is not there before anything is read or built."""
        check_device(self.device)

    def named(self, stored: str, *, what: str) -> "ModelName":
        """Return what the user typed, or else the model that a file names.

        Raises:
            ModelError: The user typed none, and that of the file must be typed.
        """
        from tokensearch.models import resolve_model, resolve_stored

        return (
            resolve_stored(stored, what=what) if self.model is None else resolve_model(self.model)
        )

    def timed(
        self,
        name: "ModelName",
        *,
        device: str,
        dtype: str,
        batch: int,
        backend: "Backend",
        seed: int,
        size: tuple[int, int] | None = None,
    ) -> TimingSubject:
        """Prepare a model as `timed` does, given how it was timed before.

        What was replayed on a GPU runs eagerly elsewhere, where there are no graphs.
        """
        from tokensearch.measure.resolve_cell import resolve_device
        from tokensearch.models import input_pixels, skeleton
        from tokensearch.records.measurements import REPLAYED

        on_gpu = resolve_device(self.device or device).type == "cuda"
        before = "eager" if backend in REPLAYED and not on_gpu else backend
        options = dict(read_options(self.img_size, self.model_kwargs))
        if size is not None and input_pixels(skeleton(name, options)) != size:
            options.setdefault("img_size", size[0] if size[0] == size[1] else size)
        return make_timing_subject(
            name,
            options=options,
            device=self.device or device,
            dtype=dtype,
            batch=self.batch_size or batch,
            backend=self.backend or before,
            seed=seed,
        )
