"""What a command works on: a model on a device with its images, real or random."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from typer import BadParameter

from tokensearch.cli.console import err
from tokensearch.cli.goal import TOKENS, check_labels, choose_objective
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
    ModelKwargsOption,
    ModelOption,
    ObjectiveOption,
    SeedOption,
    read_options,
    read_sizes,
)
from tokensearch.data.config import check_source
from tokensearch.errors import DataError, ModelError, first_line
from tokensearch.policy import EMBEDDING_OBJECTIVES, ModelSpec, Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from tokensearch.data.splits import Sizes, Splits
    from tokensearch.models import LoadedModel, ModelName, Options
    from tokensearch.records.measurements import Cell

DEMO_SPEC = ModelSpec(DEMO, blocks=12, patch_tokens=196, prefix_tokens=1, width=128)


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

    def __post_init__(self) -> None:
        """Refuse files that are not there, before anything heavy is imported to read them."""
        for name, what, kind in (
            ("checkpoint", "checkpoint", ModelError),
            ("class_map", "class map", DataError),
            ("data_config", "data config", ModelError),
            ("images_from", "folder", DataError),
        ):
            path: Path | None = getattr(self, name)
            if path is not None and not path.exists():
                raise kind(f"{what} {path} does not exist")
        if self.data is not None:
            check_source(self.data)
        if self.data is not None and self.images_from is not None:
            raise BadParameter(
                f"--images-from is {self.images_from} and --data is {self.data}; give one"
            )
        read_sizes(self.images)
        read_options(self.img_size, self.model_kwargs)
        check_device(self.device)

    @property
    def options(self) -> "Options":
        """What the model is built with."""
        return read_options(self.img_size, self.model_kwargs)


def check_device(name: str | None) -> None:
    """Refuse a GPU that is not there before anything but torch is loaded; MeasurementError."""
    if name not in {None, "auto", "cpu"}:
        from tokensearch.measure.resolve_cell import resolve_device

        resolve_device(str(name))


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


def resolve_name(name: str, options: "Options | None" = None) -> "ModelName":
    """Return the full name of a typed model, once its architecture is seen to be one we can follow.

    Looked at before any weights are loaded: an unsupported model is refused at once.
    """
    from tokensearch.models import resolve_model, skeleton
    from tokensearch.runtime import describe

    full = resolve_model(name)
    describe(skeleton(full, options or {}))
    return full


def spec_of_model(name: str, options: "Options | None" = None) -> ModelSpec:
    """Return what policies must know of a model that the user typed; nothing is downloaded.

    The bundled model is known by heart, so that `show` need not load torch for it.
    """
    if name == DEMO and not options:
        return DEMO_SPEC
    from tokensearch.models import resolve_model, skeleton
    from tokensearch.runtime import describe

    full = resolve_model(name)
    return describe(skeleton(full, options or {}), name=full)


def load_inputs(wanted: ModelOptions) -> EvaluationInputs:
    """Load the model and its images: the user's own, the bundled ones, or photograph crops.

    Says what the model is and in which cell, before images are looked for.
    Crops have no labels: what is measured on them is agreement with the baseline, or how close
    embeddings stay to its own.
    """
    import torch

    from tokensearch.data.splits import Sizes
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
    check_named(wanted.backend, device, kind)
    sizes = Sizes(*read_sizes(wanted.images))
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
    splits = _splits(wanted, loaded, sizes)
    err.print(f"images: {splits.name}", soft_wrap=True)
    if objective in EMBEDDING_OBJECTIVES:
        check_labels(splits, objective)
    else:  # a single logit tells two classes apart
        splits.check_classes(loaded.name, max(output.shape[1], 2))
    dense = output.ndim == TOKENS
    return EvaluationInputs(module, loaded.name, splits, cell, config, objective, dense)


def _splits(wanted: ModelOptions, loaded: "LoadedModel", sizes: "Sizes") -> "Splits":
    from tokensearch.data.bundled import bundled_splits
    from tokensearch.data.photos import photo_splits, picture_splits
    from tokensearch.data.sources import splits_from

    config, seed, pictures = loaded.data_config, wanted.seed, wanted.images_from
    if pictures is not None:
        return picture_splits(pictures, data_config=config, sizes=sizes, seed=seed)
    if wanted.data is not None:
        return splits_from(
            wanted.data,
            data_config=config,
            sizes=sizes,
            seed=seed,
            class_map=wanted.class_map,
            class_names=loaded.class_names,
        )
    if loaded.name == DEMO:
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
