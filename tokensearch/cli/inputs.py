"""What a command works on: a model on a device with its images, real or random."""

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Annotated, Literal

from typer import BadParameter, Option

from tokensearch.cli.console import err
from tokensearch.cli.objective import TOKENS, check_labels, choose_objective
from tokensearch.cli.options import (
    DEMO,
    SIZES_TEXT,
    BackendOption,
    BatchOption,
    CheckpointOption,
    ClassMapOption,
    DataConfigOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    ImagesFromOption,
    ImagesOption,
    ImgSizeOption,
    MaxDivergenceOption,
    MaxDropOption,
    ModelKwargsOption,
    ModelOption,
    ObjectiveOption,
    SeedOption,
    TargetOption,
    read_options,
)
from tokensearch.errors import DataError, ModelError, first_line
from tokensearch.policy import EMBEDDING_OBJECTIVES, Goal, ModelSpec, Objective, parse_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from tokensearch.data.splits import Sizes, Splits
    from tokensearch.models import ModelName, Options
    from tokensearch.policy import Policy
    from tokensearch.records.measurements import Backend, Cell


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model, its images, and the cell: an option per field."""

    model: ModelOption = DEMO
    checkpoint: CheckpointOption = None
    img_size: ImgSizeOption = None
    model_kwargs: ModelKwargsOption = None
    data: DataOption = None
    images_from: ImagesFromOption = None
    class_map: ClassMapOption = None
    data_config: DataConfigOption = None
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    batch_size: BatchOption = 8
    backend: BackendOption = "auto"
    images: ImagesOption = SIZES_TEXT
    objective: ObjectiveOption = None
    seed: SeedOption = 0

    @property
    def options(self) -> "Options":
        """What the model is built with."""
        return read_options(self.img_size, self.model_kwargs)


@dataclass(frozen=True)
class EvaluationInputs:
    """A model, ready to be measured."""

    model: "nn.Module"  # on its device, in its dtype, in eval mode
    name: str  # resolved
    splits: "Splits"
    cell: "Cell"
    data_config: "Mapping[str, object]"  # timm's: how its images are prepared
    objective: "Objective"  # says whether outputs are scores of classes or embeddings
    dense: bool  # whether the model returns its tokens


def parse_sizes(text: str) -> "Sizes":
    """Read `512,512,2000`, or a number of images to report on alone; BadParameter if it is none."""
    from tokensearch.data.splits import Sizes

    parts = text.split(",")
    if len(parts) == 1:
        parts = [*SIZES_TEXT.split(",")[:2], text]
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise BadParameter(f"--images is {text!r}; it must be three numbers like 512,512,2000")
    try:
        return Sizes(*map(int, parts))
    except DataError as error:
        raise BadParameter(f"--images is {text!r}: {error}") from error


def resolve_name(name: str, options: "Options | None" = None) -> "ModelName":
    """Return the full name of a typed model, once its architecture is seen to be one we can follow.

    Looked at before any weights are loaded: an unsupported model is refused at once.
    """
    from tokensearch.models import resolve_model, skeleton
    from tokensearch.runtime import describe

    full = resolve_model(name)
    describe(skeleton(full, options or {}))
    return full


def load_inputs(wanted: ModelOptions) -> EvaluationInputs:
    """Load the model and its images: the user's own, the bundled ones, or photograph crops.

    Says what the model is and in which cell, before images are looked for.
    Crops have no labels: what is measured on them is agreement with the baseline, or how close
    embeddings stay to its own.
    """
    import torch

    from tokensearch.measure import attention_of, describe_cell
    from tokensearch.measure.resolve_cell import (
        check_named,
        name_cell,
        resolve_backend,
        resolve_device,
        resolve_dtype,
    )
    from tokensearch.models import load_model, resolve_model

    device = resolve_device(wanted.device)
    kind = getattr(torch, resolve_dtype(wanted.dtype, device))
    check_named(wanted.backend, device)
    sizes = parse_sizes(wanted.images)
    loaded = load_model(
        resolve_model(wanted.model),
        checkpoint=wanted.checkpoint,
        data_config=wanted.data_config,
        options=wanted.options,
    )
    config = dict(loaded.data_config)
    size = config["input_size"]
    assert isinstance(size, tuple | list)
    module = loaded.module.to(device=device, dtype=kind)
    image = torch.zeros(1, *size, device=device, dtype=kind)
    output = check_forward(loaded.name, module, image)
    objective = choose_objective(wanted.objective, loaded.name, module, output)
    backend, why = resolve_backend(wanted.backend, module, image)
    cell = describe_cell(
        device,
        dtype=kind,
        batch=wanted.batch_size,
        resolution=int(size[-2]),
        columns=int(size[-1]),
        backend=backend,
        attention=attention_of(module),
    )
    full = "" if wanted.model == loaded.name else f" is {loaded.name},"
    err.print(f"model {wanted.model}{full} on {name_cell(cell)}")
    if why:
        err.print(why, soft_wrap=True)
    splits = _splits(wanted, loaded.name, config, sizes)
    err.print(f"images: {splits.name}", soft_wrap=True)
    if objective in EMBEDDING_OBJECTIVES:
        check_labels(splits, objective)
    else:  # a single logit tells two classes apart
        splits.check_classes(loaded.name, max(output.shape[1], 2))
    dense = output.ndim == TOKENS
    return EvaluationInputs(module, loaded.name, splits, cell, config, objective, dense)


def _splits(
    wanted: ModelOptions, name: str, config: "dict[str, object]", sizes: "Sizes"
) -> "Splits":
    from tokensearch.data.bundled import bundled_splits
    from tokensearch.data.photos import photo_splits, picture_splits
    from tokensearch.data.sources import splits_from

    seed, pictures = wanted.seed, wanted.images_from
    if pictures is not None:
        if wanted.data is not None:
            raise BadParameter(f"--images-from is {pictures} and --data is {wanted.data}; give one")
        return picture_splits(pictures, data_config=config, sizes=sizes, seed=seed)
    if wanted.data is not None:
        return splits_from(
            wanted.data,
            data_config=config,
            sizes=sizes,
            seed=seed,
            class_map=wanted.class_map,
        )
    if name == DEMO:
        return bundled_splits(data_config=config, sizes=sizes)
    return photo_splits(data_config=config, sizes=sizes, seed=seed)


def check_forward(name: str, module: "nn.Module", images: "torch.Tensor") -> "torch.Tensor":
    """See before anything is written whether the model takes the images; return its output.

    Raises:
        ModelError: It does not take them, or returns neither a row per image nor its tokens.
    """
    import torch

    size = "x".join(str(side) for side in images.shape[-2:])
    try:
        with torch.inference_mode():
            output = module(images)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module raises what it likes
        raise ModelError(
            f"model {name} cannot be run on {size} pixels: {first_line(error)}"
        ) from error
    if not isinstance(output, torch.Tensor) or output.ndim not in {2, TOKENS}:
        kind = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(
            f"model {name} returns {kind} for one image; it must return (1, classes), an embedding "
            f"(1, width) or tokens (1, tokens, width)"
        )
    return output


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
    check_named(backend, resolved)
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
        Literal["auto", "eager", "compile", "cudagraph", "compile-cudagraph"] | None,
        Option("--backend", help="default: as it was timed before; on a CPU, eager for graphs"),
    ] = None

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
    ) -> "TimingSubject":
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


@dataclass(frozen=True, slots=True)
class GoalOptions:
    """What is asked of the answer: an option per field."""

    latency_target: TargetOption = None
    max_drop: MaxDropOption = None
    max_divergence: MaxDivergenceOption = None

    def goal(self, *, default: str | None = None) -> Goal:
        """Return what is asked for; `default` is the latency where nothing is.

        Raises:
            BadParameter: Nothing is asked for, or a bound is below zero or no number.
            TargetError: The latency cannot be read.
        """
        bounded = self.max_drop is not None or self.max_divergence is not None
        latency = self.latency_target or (None if bounded else default)
        if latency is None and not bounded:
            raise BadParameter("give --latency-target, --max-drop or --max-divergence")
        for name, bound, unit in (
            ("--max-drop", self.max_drop, "points of accuracy"),
            ("--max-divergence", self.max_divergence, "nats"),
        ):
            if bound is not None and not 0 <= bound < inf:
                raise BadParameter(f"{name} is {bound:g}; give 0 or more {unit}")
        drop = None if self.max_drop is None else self.max_drop / 100
        target = None if latency is None else parse_target(latency)
        return Goal(target, drop, self.max_divergence)


def spec_of_model(name: str, options: "Options | None" = None) -> ModelSpec:
    """Return what policies must know of a model that the user typed; nothing is downloaded."""
    from tokensearch.models import resolve_model, skeleton
    from tokensearch.runtime import describe

    full = resolve_model(name)
    return describe(skeleton(full, options or {}), name=full)
