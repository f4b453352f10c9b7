"""What a command works on: a model on a device, with its images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokensearch.cli.console import err
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
    ImagesOption,
    ModelOption,
    SeedOption,
)
from tokensearch.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from tokensearch.data.splits import Sizes, Splits
    from tokensearch.models import ModelName
    from tokensearch.records import Cell


@dataclass(frozen=True, slots=True)
class Wanted:
    """The model, its images, and the cell: an option per field."""

    model: ModelOption = DEMO
    checkpoint: CheckpointOption = None
    data: DataOption = None
    class_map: ClassMapOption = None
    data_config: DataConfigOption = None
    device: DeviceOption = "auto"
    dtype: DtypeOption = "auto"
    batch_size: BatchOption = 8
    backend: BackendOption = "auto"
    images: ImagesOption = SIZES_TEXT
    seed: SeedOption = 0


@dataclass(frozen=True)
class Subject:
    """A model, ready to be measured."""

    model: "nn.Module"  # on its device, in its dtype, in eval mode
    name: str  # resolved
    splits: "Splits"
    cell: "Cell"
    data_config: "Mapping[str, object]"  # timm's: how its images are prepared


def parse_sizes(text: str) -> "Sizes":
    """Read `512,512,2000`: images to search, select and report on; DataError if it is not that."""
    from tokensearch.data.splits import Sizes

    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise DataError(f"--images is {text!r}; it must be three numbers like 512,512,2000")
    return Sizes(*map(int, parts))


def resolve_name(name: str) -> "ModelName":
    """Return the full name of a typed model, once its architecture is seen to be one we can follow.

    Looked at before any weights are loaded: an unsupported model is refused at once.
    """
    from tokensearch.models import resolve, skeleton
    from tokensearch.runtime import describe

    full = resolve(name)
    describe(skeleton(full))
    return full


def prepare(wanted: Wanted) -> Subject:
    """Load the model and its images: the user's own, the bundled ones, or photograph crops.

    Says what the model is and in which cell, before images are looked for.
    Crops have no labels: what is measured on them is agreement with the un-reduced model.
    """
    import torch

    from tokensearch.cli.auto import (
        check_named,
        resolve_backend,
        resolve_device,
        resolve_dtype,
        where,
    )
    from tokensearch.measure import attention_of, describe_cell
    from tokensearch.models import load_model, resolve

    device = resolve_device(wanted.device)
    kind = getattr(torch, resolve_dtype(wanted.dtype, device))
    check_named(wanted.backend, device)
    sizes = parse_sizes(wanted.images)
    loaded = load_model(
        resolve(wanted.model), checkpoint=wanted.checkpoint, data_config=wanted.data_config
    )
    config = dict(loaded.data_config)
    size = config["input_size"]
    assert isinstance(size, tuple | list)
    module = loaded.module.to(device=device, dtype=kind)
    image = torch.zeros(1, *size, device=device, dtype=kind)
    classes = check_forward(loaded.name, module, image)
    backend, why = resolve_backend(wanted.backend, module, image)
    cell = describe_cell(
        device,
        dtype=kind,
        batch=wanted.batch_size,
        resolution=int(size[-1]),
        backend=backend,
        attention=attention_of(module),
    )
    err.print(f"model {wanted.model} is {loaded.name}, on {where(cell)}")
    if why:
        err.print(why, soft_wrap=True)
    splits = _splits(wanted, loaded.name, config, sizes)
    _check_classes(loaded.name, classes, splits)
    return Subject(module, loaded.name, splits, cell, config)


def _splits(wanted: Wanted, name: str, config: "dict[str, object]", sizes: "Sizes") -> "Splits":
    from tokensearch.data.bundled import bundled_splits
    from tokensearch.data.photos import photo_splits
    from tokensearch.data.sources import splits_from

    if wanted.data is not None:
        return splits_from(
            wanted.data,
            data_config=config,
            sizes=sizes,
            seed=wanted.seed,
            class_map=wanted.class_map,
        )
    if name == DEMO:
        return bundled_splits(data_config=config, sizes=sizes)
    return photo_splits(data_config=config, sizes=sizes, seed=wanted.seed)


def _check_classes(name: str, classes: int, splits: "Splits") -> None:
    """Refuse bundled scenes to a model of other classes; nothing is known of a user's images."""
    if splits.classes not in {None, classes}:
        raise DataError(
            f"the {splits.name} have {splits.classes} classes and model {name} has {classes}; "
            "give weights that were trained on them with --checkpoint FILE, or other images"
        )


def check_forward(name: str, module: "nn.Module", images: "torch.Tensor") -> int:
    """See before anything is written whether the model takes the images; return its classes.

    Raises:
        ModelError: It does not take them, or returns something else than a row per image.
    """
    import torch

    size = "x".join(str(side) for side in images.shape[-2:])
    try:
        with torch.inference_mode():
            logits = module(images)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module raises what it likes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"model {name} cannot be run on {size} pixels: {reason}") from error
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        kind = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ModelError(f"model {name} returns {kind} for one image; it must return (1, classes)")
    return logits.shape[1]
