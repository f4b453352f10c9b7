"""Models of Hugging Face transformers, by a name on the hub or a folder: `hf:NAME_OR_FOLDER`.

What a class of theirs returns is a record; `HuggingFaceModel` returns logits or an embedding, as
timm's models do. Only safetensors are read, and never code that lies beside weights.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from warnings import warn

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError
from torch import Tensor, nn

from tokensearch.errors import ModelError, TokensearchWarning, first_line
from tokensearch.runtime import towers
from tokensearch.runtime.towers import Tower, tower_of

PREFIX = "hf:"

# huggingface_hub tries a dead connection for 47 s (two files, six tries each) before it gives up.
# One question first, about the file we are after, answers in this time at most.
HUB_TIMEOUT_S = 10.0

# The tower of each `model_type`, for configurations that name no class that is supported. Of models
# of images and text the part that sees.
_TOWERS = {
    "vit": "ViTModel",
    "deit": "DeiTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "dinov3_vit": "DINOv3ViTModel",
    "clip": "CLIPVisionModel",
    "clip_vision_model": "CLIPVisionModel",
    "siglip": "SiglipVisionModel",
    "siglip_vision_model": "SiglipVisionModel",
}
_INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # PIL's numbers
_ANSWERS = ("logits", "image_embeds", "pooler_output")  # fields of outputs, the first that is there
_NUMBER = re.compile(r"\.\d+\.")  # of a block, in the name of a weight
_UNNAMED = "LABEL_"  # begins what transformers calls classes that nobody has named

Options = Mapping[str, object]
Value = TypeVar("Value")


class HuggingFaceModel(nn.Module):
    """A model of transformers as a function of images that returns a tensor.

    `pretrained_cfg` says how its images are prepared, in timm's words, or nothing.
    """

    def __init__(self, model: Any, pretrained_cfg: Mapping[str, object]) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = dict(pretrained_cfg)
        self.reads_pooled = True  # and averages no patch tokens of a tower, see `forward`
        self.resamples = False  # positions, to images of another size than it was trained on
        self.feature_info = [{"reduction": self._tower.patch_size[0]}]

    @property
    def _tower(self) -> Tower:
        tower = tower_of(self.model)
        assert tower is not None  # of the classes that are built here
        return tower

    def set_input_size(self, img_size: tuple[int, int]) -> None:
        """Take images of so many rows and columns from now on; positions are resampled."""
        self.resamples = not self._tower.takes_any_size
        if self.resamples and not towers.resampling(self.model):
            raise ModelError(
                f"a {type(self.model).__name__} cannot resample its positions; leave --img-size out"
            )
        self._tower.module.config.image_size = list(img_size)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, rows, columns) -> logits (B, K), an embedding (B, W) or tokens (B, T, C).

        Tokens are returned by towers that neither pool nor have a class token.
        """
        more = towers.resampling(self.model) if self.resamples else {}
        out = self.model(pixel_values=images, return_dict=True, **more)
        for name in _ANSWERS:
            if out.get(name) is not None:
                answer: Tensor = out[name]
                return answer
        tokens: Tensor = out.last_hidden_state
        return tokens[:, 0] if self._tower.has_class_token else tokens


def is_classifier(model: nn.Module) -> bool:
    """Whether a model of transformers has a classifier."""
    labels = getattr(getattr(model, "config", None), "num_labels", 0)
    return "ForImageClassification" in type(model).__name__ and labels > 0


def class_names(model: nn.Module) -> tuple[str, ...] | None:
    """Return what a model of transformers calls its classes, in order, where somebody named them.

    It says "tench, Tinca tinca" where there are several names.
    """
    config: Any = getattr(model, "config", None)
    if config is None or not is_classifier(model):
        return None
    names = tuple(str(config.id2label.get(i, "")) for i in range(config.num_labels))
    unnamed = any(not name or name.startswith(_UNNAMED) for name in names)
    return None if unnamed or len(set(names)) < len(names) else names


def build_model(name: str, options: Options) -> HuggingFaceModel:
    """Return a model with random weights, on whichever device is torch's own at the moment.

    Raises:
        ModelError: There is no such model, it is of another kind, or takes no such options.
    """
    return _finished(_find(name), options, lambda found, config: found.kind(config))


def load_weights(name: str, options: Options) -> HuggingFaceModel:
    """Return a model with its weights, in float32.

    Raises:
        ModelError: As of `build_model`; or weights are not there, or others than the model's.
    """
    return _finished(_find(name), options, _with_weights)


def ask_hub(repository: str, file: str) -> None:
    """Raise at once what the HTTP client raises, if a file cannot be fetched."""
    with suppress(EntryNotFoundError):  # the hub answers; which file it is, others find out
        get_hf_file_metadata(hf_hub_url(repository, file), timeout=HUB_TIMEOUT_S)


class _Source(NamedTuple):
    """A model on the hub or in a folder, and the class that it is loaded as."""

    name: str  # as typed
    where: str  # the folder, or the name on the hub
    revision: str | None
    kind: Any

    @property
    def is_folder(self) -> bool:
        return bool(self.where) and Path(self.where).is_dir()

    def fetch(self, load: Callable[..., Value]) -> Value:
        """Call `load` with what is here; where that is not enough, with the hub's."""
        more = {} if self.revision is None else {"revision": self.revision}
        try:
            return load(self.where, local_files_only=True, **more)
        except OSError:
            if self.is_folder:
                raise
        ask_hub(self.where, "config.json")
        return load(self.where, **more)


def _find(name: str) -> _Source:
    """Find out which class a model is, by its configuration alone."""
    if find_spec("transformers") is None:
        raise ModelError(
            f"--model {name} needs transformers; pip install 'tokensearch[transformers]'"
        )
    where, _, revision = name.removeprefix(PREFIX).partition("@")
    source = _Source(name, where, revision or None, None)
    if source.is_folder and not (Path(where) / "config.json").is_file():
        raise ModelError(f"folder {where} has no config.json; give one that save_pretrained wrote")
    path_like = not where or where.count("/") > 1 or where.startswith((".", "~", "/"))
    if not source.is_folder and path_like:
        raise ModelError(
            f"{where or name} is not a folder; give one that save_pretrained wrote, or a name on "
            f"the hub such as facebook/dinov2-small"
        )
    import transformers

    read = transformers.PreTrainedConfig.get_config_dict
    try:
        config, _ = source.fetch(read)
    except Exception as error:  # hub, HTTP client and file system raise what they like
        raise ModelError(
            f"the configuration of {name} cannot be read ({first_line(error)}); give a folder that "
            f"save_pretrained wrote"
        ) from error
    return source._replace(kind=getattr(transformers, _class_of(name, config)))


def _class_of(name: str, config: Mapping[str, Any]) -> str:
    """Name the class that a configuration is for; ModelError where it is none that we know."""
    named = config.get("architectures") or []
    for architecture in named:
        if architecture in towers.CLASSES:
            return str(architecture)
    kind = config.get("model_type")
    if kind is None and "architecture" in config:
        timms = "local-dir:" if Path(name.removeprefix(PREFIX)).is_dir() else "hf-hub:"
        raise ModelError(
            f"{name} is a model of timm's; give --model {timms}{name.removeprefix(PREFIX)}"
        )
    if kind not in _TOWERS:
        what = named[0] if named else f"model of type {kind!r:.60}"
        raise ModelError(f"{name} is a {what}; supported are {towers.NAMES}")
    return _TOWERS[kind]


def _finished(
    source: _Source, options: Options, make: Callable[[_Source, Any], Any]
) -> HuggingFaceModel:
    """Make a model and give it the size and the preparation of its images."""
    own = dict(options)
    size: Any = own.pop("img_size", None)
    with _quiet():
        try:
            config = source.fetch(source.kind.config_class.from_pretrained)
            _set_options(source, config, own)
            model = make(source, config)
        except ModelError:
            raise
        except Exception as error:  # transformers, safetensors and the hub raise what they like
            spelt = ", ".join(f"{key}={value}" for key, value in options.items())
            with_them = f" with {spelt}" if spelt else ""
            raise ModelError(
                f"{source.name} cannot be loaded as {source.kind.__name__}{with_them}: "
                f"{first_line(error)}"
            ) from error
        prepared = _read_processor(source)
    # Where it came from is no part of what it computes, and files name it by themselves.
    config = model.config
    for part in (*model.modules(), config):
        if hasattr(part, "name_or_path"):
            part.name_or_path = ""
    config._commit_hash = None
    wrapped = HuggingFaceModel(model, prepared)
    tower = wrapped._tower
    if size is not None:
        wrapped.set_input_size((size, size) if isinstance(size, int) else tuple(size))
    elif tower.takes_any_size and prepared:
        wrapped.set_input_size(prepared["input_size"][1:])
    return wrapped


def _set_options(source: _Source, config: Any, options: Options) -> None:
    """Set attributes of a configuration, of its tower's before its own."""
    parts = [part for part in (getattr(config, "vision_config", None), config) if part is not None]
    for key, value in options.items():
        if key == "attn_implementation":
            config._attn_implementation = value
            continue
        part = next(
            (part for part in parts if not key.startswith("_") and hasattr(part, key)), None
        )
        if part is None or callable(getattr(part, key)):
            raise ModelError(
                f"{source.name} takes no {key}; --model-kwargs are attributes of its "
                f"{type(config).__name__}, or attn_implementation"
            )
        setattr(part, key, value)


def _with_weights(source: _Source, config: Any) -> nn.Module:
    """Load a model; where its pooler has no weights, it does without."""
    if source.is_folder and not any(Path(source.where).glob("*.safetensors")):
        raise ModelError(
            f"folder {source.where} has no safetensors, and other files of weights are not read; "
            f"save the model again with save_pretrained"
        )
    model, missing = _read_weights(source, config)
    if missing and all(key.startswith("pooler.") for key in missing):
        warn(
            f"{source.name} has no weights of a pooler; its class token is the embedding",
            TokensearchWarning,
            stacklevel=2,
        )
        model, missing = _read_weights(source, config, add_pooling_layer=False)
    if missing:
        raise ModelError(
            f"{source.name} lacks {len(missing)} weights of a {source.kind.__name__}: "
            f"{', '.join(missing[:3])}"
        )
    return model


def _read_weights(source: _Source, config: Any, **more: Any) -> tuple[nn.Module, list[str]]:
    def load(where: str, **own: Any) -> tuple[nn.Module, dict[str, Any]]:
        read: Any = source.kind.from_pretrained
        loaded: tuple[nn.Module, dict[str, Any]] = read(
            where,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **own,
            **more,
        )
        return loaded

    model, info = source.fetch(load)
    names = model.state_dict()
    beyond = [key for key in info["unexpected_keys"] if _NUMBER.sub(".0.", key, count=1) in names]
    if beyond:  # which transformers leaves out
        raise ModelError(
            f"{source.name} has weights of more blocks than its configuration says "
            f"({min(beyond)}); give the configuration that was saved with them"
        )
    return model, sorted(info["missing_keys"])


def _read_processor(source: _Source) -> dict[str, Any]:
    """Return how the model's own image processor prepares images; nothing where it has none."""
    from transformers import AutoImageProcessor

    try:
        processor = source.fetch(AutoImageProcessor.from_pretrained)
    except (OSError, ValueError):  # no file, or one that names no processor
        return {}
    return prepare_as(processor.to_dict(), source.name)


def prepare_as(processor: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what an image processor of transformers does, in timm's words.

    ModelError where it does what timm's evaluation transform does not.
    """
    scales = processor.get("do_rescale") and math.isclose(processor["rescale_factor"], 1 / 255)
    resized, crop_mode = _resized_to(processor)
    if not scales or not processor.get("do_resize") or resized is None:
        raise ModelError(
            f"the image processor of {name} does not resize to a fixed size and scale by 1/255; "
            f"say with --data-config FILE how images are prepared"
        )
    crop = _sides(processor["crop_size"]) if processor.get("do_center_crop") else resized
    normalises = processor.get("do_normalize")
    return {
        "input_size": (3, *crop),
        "mean": tuple(processor["image_mean"]) if normalises else (0.0, 0.0, 0.0),
        "std": tuple(processor["image_std"]) if normalises else (1.0, 1.0, 1.0),
        "interpolation": _INTERPOLATIONS[int(processor["resample"])],
        "crop_pct": _share(min(crop), min(resized)),
        "crop_mode": crop_mode,
    }


def _resized_to(processor: Mapping[str, Any]) -> tuple[tuple[int, int] | None, str]:
    """Return the size that images are resized to, or their shorter side, and timm's word for it."""
    size: Mapping[str, Any] = processor.get("size") or {}
    if size.get("height") and size.get("width"):
        return _sides(size), "squash"
    if size.get("shortest_edge") and not size.get("longest_edge"):
        return (size["shortest_edge"],) * 2, "center"
    return None, ""


def _sides(size: Mapping[str, Any]) -> tuple[int, int]:
    edge = size.get("shortest_edge")
    return (int(edge), int(edge)) if edge else (int(size["height"]), int(size["width"]))


def _share(crop: int, resized: int) -> float:
    """Return the share of a side that is kept, from which timm gets `resized` back by rounding."""
    share = crop / resized
    while math.floor(crop / share) < resized:
        share = math.nextafter(share, 0)
    return share


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' tables and bars: what matters of them is said in our own words."""
    from transformers.utils import logging as module

    logging: Any = module
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
