"""The one place that knows timm: names, weights, preprocessing.

A name is `demo`, an alias, a timm name (`vit_base_patch16_224.augreg_in21k_ft_in1k`, `hf-hub:...`,
`local-dir:...`), or `package.module:function`, the user's own factory.

A factory is imported and called, and a hub or a folder is read, only where the user typed the name:
`resolve` is for those. A name that stands in a file goes through `resolve_stored`, which lets
nothing pass but `demo` and what timm itself builds. A `ModelName` comes from one of the two.
"""

import difflib
import importlib
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NewType

import timm
import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from timm.data import resolve_data_config
from timm.models import load_state_dict
from torch import Tensor, nn

from tokensearch.demo.model import demo_model
from tokensearch.documents import read_object
from tokensearch.errors import ModelError, first_line

ModelName = NewType("ModelName", str)  # full, and found fit to be loaded

DEMO = "demo"
ALIASES: Mapping[str, str] = {
    **{f"deit_{size[0]}": f"deit_{size}_patch16_224.fb_in1k" for size in ("tiny", "small", "base")},
    **{
        f"vit_{size[0]}": f"vit_{size}_patch16_224.augreg_in21k_ft_in1k"
        for size in ("tiny", "small", "base", "large")
    },
}

_HUB = ("hf-hub:", "hf_hub:")
_SOURCES = (*_HUB, "local-dir:")
_FACTORY = re.compile(r"[\w.]+:\w+")

# huggingface_hub tries a dead connection for 47 s (two files, six tries each) before it gives up.
# One question first, about the file we are after, answers in this time at most.
HUB_TIMEOUT_S = 10.0
# A ViT of ten thousand tensors has a header of 1 MB.
MAX_HEADER_BYTES = 16 * 2**20
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# An image's shorter side is resized to that of the input over `crop_pct`, here to 4,096 pixels at
# most. timm's models take up to 1,024 pixels, by 0.875 to 1.15.
MAX_SIDE, CROPS = 2048, (0.5, 2.0)
_LONGEST_NAME = 200  # of what is compared with all known names


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured, in eval mode, on the CPU."""

    module: nn.Module
    name: ModelName  # what the name resolved to
    data_config: Mapping[str, object]  # timm's: input_size, mean, std, interpolation, crop_pct, ...
    pretrained: bool  # published weights; False for a checkpoint's and for a factory's


def resolve_model(name: str) -> ModelName:
    """Return the full name of a model that the user typed: aliases spelt out, timm's tag added.

    Never for a name that was read from a file: see `resolve_stored`.

    Raises:
        ModelError: Nothing is called that; the message has the nearest names.

    >>> resolve_model("deit_s")
    'deit_small_patch16_224.fb_in1k'
    """
    full = ALIASES.get(name, name)
    if full == DEMO or _reaches_out(full):
        return ModelName(full)
    weights = timm.list_pretrained()
    if full in weights:
        return ModelName(full)
    if "." not in full and timm.is_model(full):
        config = timm.get_pretrained_cfg(full)
        tagged = f"{full}.{config.tag}" if config is not None else full
        return ModelName(tagged if tagged in weights else full)
    known = [DEMO, *ALIASES, *timm.list_models(), *weights]
    longer = sorted((other for other in known if other.startswith(name)), key=len)
    start = name[:_LONGEST_NAME]
    near = longer[:3] or difflib.get_close_matches(start, known, n=3, cutoff=0.3)
    raise ModelError(
        f"model {start!r} is unknown; the nearest are {', '.join(near or [DEMO, *ALIASES])}"
    )


def resolve_stored(name: str, *, what: str) -> ModelName:
    """Return the full name of a model that a file names: `demo`, or what timm itself builds.

    what  the file or its contents, in words, for the error: "the policy"

    Raises:
        ModelError: It is a factory, or comes from a hub or a folder: files are data, and name
            neither code to run nor places to read. Or nothing is called that.
    """
    if _reaches_out(name):
        raise ModelError(
            f"{what} was made for the model {name[:_LONGEST_NAME]!r}, which is loaded only if you "
            f"name it yourself; give --model {name[:_LONGEST_NAME]!r}"
        )
    return resolve_model(name)


def _reaches_out(name: str) -> bool:
    """Whether loading it runs code of somebody's, or reads from a hub or a folder."""
    return name.startswith(_SOURCES) or _is_factory(name)


def skeleton(name: ModelName) -> nn.Module:
    """Return the model's modules without its weights, to look at before anything is downloaded.

    Parameters are on the meta device: shapes are right, values do not exist. A factory may do
    anything, so it is called as it is. `hf-hub:` names need the network for their configuration.

    Raises:
        ModelError: The factory fails.
    """
    if _is_factory(name):
        return _from_factory(name)
    with torch.device("meta"):
        return _bare(name)


def untrained(name: ModelName) -> nn.Module:
    """Return the model with random weights, in eval mode: how long a pass takes is the same.

    Raises:
        ModelError: The factory fails.
    """
    return (_from_factory(name) if _is_factory(name) else _bare(name)).eval()


def input_pixels(module: nn.Module) -> int:
    """Return the side of the images that a model takes: its own word, or timm's configuration's."""
    own: Any = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return int((own or resolve_data_config({}, model=module)["input_size"])[-1])


def load_model(
    name: ModelName, *, checkpoint: Path | None = None, data_config: Path | None = None
) -> LoadedModel:
    """Load a model with its weights.

    Args:
        name: See the top of this module.
        checkpoint: Weights to use instead of the published ones: safetensors, or a torch file with
            tensors alone (`model`, `state_dict`, EMA: unwrapped). Its head sets the classes.
        data_config: JSON with any of `input_size`, `mean`, `std`, `interpolation`, `crop_pct`,
            `crop_mode`; the rest is as the model's own configuration has it, or timm's defaults.

    Raises:
        ModelError: Weights cannot be had or do not fit, or the factory fails.
    """
    wanted = {} if data_config is None else _read_data_config(data_config)
    if checkpoint is not None:
        module = _with_checkpoint(name, checkpoint)
    elif _is_factory(name):
        module = _from_factory(name)
    elif name == DEMO:
        module = _created(name, pretrained=True)
    else:
        module = _downloaded(name, pretrained=True)
    return LoadedModel(
        module=module.eval(),
        name=name,
        data_config=resolve_data_config(wanted, model=module),
        pretrained=checkpoint is None and not _is_factory(name),
    )


def _bare(name: str) -> nn.Module:
    """Return an untrained model that is no factory's."""
    if name.startswith(_SOURCES):
        return _downloaded(name, pretrained=False)
    return _created(name, pretrained=False)


def _downloaded(name: str, *, pretrained: bool) -> nn.Module:
    """Let timm fetch what it needs, after asking whether the hub can be reached."""
    try:
        _ask_hub(name)
        return _created(name, pretrained=pretrained)
    except Exception as error:
        # Hub, HTTP client, file system and timm raise what they like; the user's way out is one.
        raise ModelError(
            f"the weights of {name} cannot be downloaded ({first_line(error)}); "
            "give a local file with --checkpoint FILE"
        ) from error


def _created(name: str, *, pretrained: bool) -> nn.Module:
    create = demo_model if name == DEMO else partial(timm.create_model, name)
    module: nn.Module = create(pretrained=pretrained)
    return module


def _ask_hub(name: str) -> None:
    """Raise at once what the HTTP client raises, if weights that are not here cannot be fetched."""
    if (place := _on_hub(name)) is None:
        return
    repository, files = place
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return
    with suppress(EntryNotFoundError):  # the hub answers; which file it is, timm finds out
        get_hf_file_metadata(hf_hub_url(repository, files[0]), timeout=HUB_TIMEOUT_S)


def _on_hub(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the model's repository on the hub, and the files of which one would do."""
    if name.startswith(_HUB):
        return name.partition(":")[2].partition("@")[0], ("config.json",)
    config = None if name.startswith(_SOURCES) else timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    named = (config.hf_hub_filename,) if config.hf_hub_filename else ()
    return config.hf_hub_id, (*named, *_HUB_FILES)


def _is_factory(name: str) -> bool:
    return not name.startswith(_SOURCES) and _FACTORY.fullmatch(name) is not None


def _from_factory(name: str) -> nn.Module:
    """Import `package.module:function` and return what it returns."""
    factory = _factory(name)
    try:
        module = factory()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # that of a SystemExit would pass for our own exit code
        raise ModelError(f"model factory {name} failed: {first_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"model factory {name} returned a {type(module).__name__}, not a torch module"
        )
    return module


def _factory(name: str) -> Callable[[], object]:
    package, _, function = name.partition(":")
    # An installed command does not look where it is started, yet that is where a user's factory is.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(package)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ModelError(f"model factory {name} cannot be imported: {first_line(error)}") from error
    factory: Callable[[], object] | None = getattr(module, function, None)
    if not callable(factory):
        raise ModelError(f"module {package} has no function {function}")
    return factory


def _with_checkpoint(name: str, file: Path) -> nn.Module:
    state = _read_state(file)
    module = _from_factory(name) if _is_factory(name) else _with_head_of(state, _bare(name))
    differing = list(_differences(module.state_dict(), state))
    if differing:
        raise ModelError(
            f"checkpoint {file} does not fit {name} in {len(differing)} tensors: "
            f"{'; '.join(differing[:3])}"
        )
    module.load_state_dict(state)
    return module


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise ModelError(f"checkpoint {file} does not exist")
    _check_container(file)
    try:
        state: dict[str, Tensor] = load_state_dict(str(file), weights_only=True)
    except Exception as error:
        raise ModelError(
            f"checkpoint {file} cannot be read; it must be safetensors, "
            "or a torch file that holds tensors and no code"
        ) from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"checkpoint {file} holds no table of named tensors")
    return state


def _check_container(file: Path) -> None:
    """Refuse a file that unpacks to more than it is, before anything is unpacked.

    torch.save stores its members as they are, and safetensors begins with the length of its header
    (8 bytes, little-endian).
    """
    try:
        if file.suffix == ".safetensors":
            with file.open("rb") as opened:
                header = int.from_bytes(opened.read(8), "little")
            if header > MAX_HEADER_BYTES:
                raise ModelError(
                    f"checkpoint {file} has a header of {header:,} bytes; at most "
                    f"{MAX_HEADER_BYTES:,} are read"
                )
        elif zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
            if packed or sum(member.file_size for member in members) > file.stat().st_size:
                raise ModelError(
                    f"checkpoint {file} is compressed, which torch.save never does; save it again"
                )
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(f"checkpoint {file} cannot be read: {first_line(error)}") from error


def _with_head_of(state: Mapping[str, Tensor], module: nn.Module) -> nn.Module:
    """Give a timm model as many classes as the checkpoint's head has."""
    config: Any = module.pretrained_cfg
    classifier = config.get("classifier", "head")  # a tuple of names in distilled models
    head = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f"{head}.weight")
    reset: Any = module.reset_classifier
    if weight is not None and len(weight) != config["num_classes"]:
        reset(len(weight))
    return module


def _differences(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in wanted.items():
        if name not in given:
            yield f"{name} is missing"
        elif given[name].shape != tensor.shape:
            yield f"{name} is {tuple(given[name].shape)}, not {tuple(tensor.shape)}"
    yield from (f"{name} is unknown" for name in given if name not in wanted)


def _read_data_config(file: Path) -> dict[str, Any]:
    try:
        config = read_object(file, what="a data config", error=ModelError)
    except ModelError as error:
        raise ModelError(f"data config {file}: {error}") from error
    for key, value in config.items():
        if key not in _SETTINGS:
            raise ModelError(f"data config {file} has {key!r}; it may have {', '.join(_SETTINGS)}")
        form, fits = _SETTINGS[key]
        if not fits(value):
            raise ModelError(f"{key} in data config {file} is {value!r}; it must be {form}")
    return config


def _three(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, kind) for v in value)


_NUMBER = (int, float)
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "input_size": (
        f"[channels, rows, columns], of at most {MAX_SIDE} each",
        lambda v: _three(v, int) and min(v) > 0 and max(v) <= MAX_SIDE,
    ),
    "mean": ("three numbers", lambda v: _three(v, _NUMBER)),
    "std": ("three numbers above 0", lambda v: _three(v, _NUMBER) and min(v) > 0),
    "interpolation": (f"one of {', '.join(_INTERPOLATIONS)}", lambda v: v in _INTERPOLATIONS),
    "crop_pct": (
        "a number from {} to {}".format(*CROPS),
        lambda v: isinstance(v, _NUMBER) and CROPS[0] <= v <= CROPS[1],
    ),
    "crop_mode": ("center, squash or border", lambda v: v in ("center", "squash", "border")),
}
