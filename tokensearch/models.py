"""The one place that knows timm: names, weights, preprocessing.

A name is `demo`, an alias, a timm name (`vit_base_patch16_224.augreg_in21k_ft_in1k`, `hf-hub:...`,
`local-dir:...`), `hf:...` for a model of transformers (see `hugging_face`), or
`package.module:function`, the user's own factory.

A factory is imported and called, and a hub or a folder is read, only where the user typed the name:
`resolve` is for those. A name that stands in a file goes through `resolve_stored`, which lets
nothing pass but `demo` and what timm itself builds. A `ModelName` comes from one of the two.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NewType

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from timm.data import resolve_data_config
from torch import Tensor, nn

from tokensearch.checkpoints import (
    Table,
    explain_misfit,
    fit_table,
    list_misfits,
    other_pool,
    read_tables,
    say,
    without_head,
)
from tokensearch.data.config import MAX_SIDE, read_data_config
from tokensearch.demo.model import demo_model
from tokensearch.errors import ModelError, first_line
from tokensearch.factories import call_factory, is_factory
from tokensearch.hugging_face import (
    PREFIX,
    HuggingFaceModel,
    ask_hub,
    build_model,
    class_names,
    is_classifier,
    load_weights,
)
from tokensearch.runtime.host import unwrap
from tokensearch.runtime.towers import tower_of

ModelName = NewType("ModelName", str)  # full, and found fit to be loaded
Options = Mapping[str, object]  # of timm's constructors, `img_size` among them; or of a factory
NONE: Options = {}

DEMO = "demo"
ALIASES: Mapping[str, str] = {
    **{f"deit_{size[0]}": f"deit_{size}_patch16_224.fb_in1k" for size in ("tiny", "small", "base")},
    **{
        f"vit_{size[0]}": f"vit_{size}_patch16_224.augreg_in21k_ft_in1k"
        for size in ("tiny", "small", "base", "large")
    },
}

# timm's modules whose models can follow a policy, but for a few: `doctor --models` tries each.
HOSTS = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "naflexvit")
_HUB = ("hf-hub:", "hf_hub:")
_SOURCES = (*_HUB, "local-dir:", PREFIX)

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
# What timm calls the image towers of CLIP and its kin; `_ft_` marks those trained on to classify.
_TOWERS = ("clip", "pe_core", "_mci_")
_LONGEST_NAME = 200  # of what is compared with all known names


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be measured, in eval mode, on the CPU."""

    module: nn.Module
    name: ModelName  # what the name resolved to
    data_config: Mapping[str, object]  # timm's: input_size, mean, std, interpolation, crop_pct, ...
    pretrained: bool  # published weights; False for a checkpoint's and for a factory's
    class_names: tuple[str, ...] | None = None  # in order, where the model says so


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
    hosts = (timm.list_models(module=HOSTS, pretrained=tagged) for tagged in (False, True))
    known = [DEMO, *ALIASES, *chain.from_iterable(hosts)]
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


def skeleton(name: ModelName, options: Options = NONE) -> nn.Module:
    """Return the model's modules without its weights, to look at before anything is downloaded.

    Parameters are on the meta device: shapes are right, values do not exist. A factory may do
    anything, so it is called as it is. `hf-hub:` names need the network for their configuration.

    Raises:
        ModelError: The factory fails.
    """
    if _is_factory(name):
        return _from_factory(name, options)
    with torch.device("meta"):
        return _bare(name, options)


def untrained(name: ModelName, options: Options = NONE) -> nn.Module:
    """Return the model with random weights, in eval mode: how long a pass takes is the same.

    Raises:
        ModelError: The factory fails.
    """
    return (_from_factory(name, options) if _is_factory(name) else _bare(name, options)).eval()


def input_pixels(module: nn.Module) -> tuple[int, int]:
    """Return rows and columns of a model's images: its own word, or timm's configuration's."""
    size: Any = _in_its_size(module, {})["input_size"]
    return int(size[-2]), int(size[-1])


def returns_embeddings(module: nn.Module) -> bool:
    """Whether a model has no classifier: none at all, or CLIP's projection in the place of one."""
    inner = unwrap(module)
    if tower_of(inner) is not None:
        return not is_classifier(inner)
    config: Any = getattr(inner, "pretrained_cfg", None) or {}
    classes: Any = getattr(inner, "num_classes", None)
    name = f"{config.get('architecture')}.{config.get('tag')}"
    tower = any(part in name for part in _TOWERS) and "_ft_" not in name
    return classes == 0 or (tower and classes == config.get("num_classes"))


def _in_its_size(module: nn.Module, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's data config of a model. Its size is what the model was built for."""
    config: dict[str, Any] = resolve_data_config(dict(wanted), model=module)
    own = _measures(module)[0]
    if own is None or (getattr(module, "dynamic_img_size", False) and "input_size" in wanted):
        return config
    size = (config["input_size"][0], *own)
    if "input_size" in wanted and tuple(wanted["input_size"]) != size:
        spelt = "x".join(str(side) for side in dict.fromkeys(wanted["input_size"][1:]))
        raise ModelError(
            f"input_size in the data config is {wanted['input_size']}, but the model takes "
            f"{list(size)}; build it for that size with --img-size {spelt}"
        )
    return {**config, "input_size": size}


def load_model(
    name: ModelName,
    *,
    checkpoint: Path | None = None,
    data_config: Path | None = None,
    options: Options = NONE,
) -> LoadedModel:
    """Load a model with its weights.

    Args:
        name: See the top of this module.
        checkpoint: Weights to use instead of the published ones: safetensors, or a torch file with
            tensors alone, wherever they stand in it (see `checkpoints`). Its head sets the classes.
        data_config: JSON with any of `input_size`, `mean`, `std`, `interpolation`, `crop_pct`,
            `crop_mode`; the rest is as the model's own configuration has it, or timm's defaults.
        options: Keyword arguments of timm's constructor, or of the factory. Position embeddings
            are resampled to `img_size`, as timm does it.

    Raises:
        ModelError: The model takes no such options, weights cannot be had or do not fit, or the
            factory fails.
    """
    wanted = {} if data_config is None else read_data_config(data_config)
    if checkpoint is not None:
        module = _with_checkpoint(name, checkpoint, options)
    elif _is_factory(name):
        module = _from_factory(name, options)
    elif name == DEMO:
        module = _created(name, options, pretrained=True)
    elif name.startswith(PREFIX):
        module = load_weights(name, options)
        _check_grid(module, options)
    else:
        module = _downloaded(name, options, pretrained=True)
    if name.startswith(PREFIX) and not module.pretrained_cfg and data_config is None:
        raise ModelError(
            f"{name} has no image processor (preprocessor_config.json), which says how images are "
            f"prepared; say it with --data-config FILE"
        )
    return LoadedModel(
        module=module.eval(),
        name=name,
        data_config=_in_its_size(module, wanted),
        pretrained=checkpoint is None and not _is_factory(name),
        class_names=class_names(unwrap(module)),
    )


def _bare(name: str, options: Options) -> nn.Module:
    """Return an untrained model that is no factory's."""
    if name.startswith(PREFIX):
        module = build_model(name, options)
        _check_grid(module, options)
        return module
    if name.startswith(_SOURCES):
        return _downloaded(name, options, pretrained=False)
    return _created(name, options, pretrained=False)


def _downloaded(name: str, options: Options, *, pretrained: bool) -> nn.Module:
    """Let timm fetch what it needs, after asking whether the hub can be reached."""
    if options and not name.startswith(_SOURCES):
        with torch.device("meta"):
            _created(name, options, pretrained=False)  # options are refused before any download
    try:
        _ask_hub(name)
        return _created(name, options, pretrained=pretrained)
    except Exception as error:
        # Hub, HTTP client, file system and timm raise what they like; the user's way out is one.
        raise ModelError(
            f"the weights of {name} cannot be downloaded ({first_line(error)}); "
            "give a local file with --checkpoint FILE"
        ) from error


def _created(name: str, options: Options, *, pretrained: bool) -> nn.Module:
    create: Any = demo_model if name == DEMO else partial(timm.create_model, name)
    try:
        module: nn.Module = create(pretrained=pretrained, **options)
    except (AssertionError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if not options:
            raise
        raise ModelError(
            f"model {name} cannot be built with {_spelt(options)}: {first_line(error)}"
        ) from error
    _check_grid(module, options)
    return module


def _spelt(options: Options) -> str:
    return ", ".join(f"{key}={value}" for key, value in options.items())


def _check_grid(module: nn.Module, options: Options) -> None:
    """Refuse a size that patches do not fill: timm would leave the margin out."""
    size, patch = _measures(module)
    if "img_size" not in options or size is None or patch is None:
        return
    for side, step in zip(size, patch, strict=True):
        if side % step or not 0 < side <= MAX_SIDE:
            below = max(side // step, 1) * step
            raise ModelError(
                f"img_size {side} is no multiple of the model's patches of {step} pixels up to "
                f"{MAX_SIDE}; take {min(below, MAX_SIDE)} or {min(below + step, MAX_SIDE)}"
            )


def _measures(module: nn.Module) -> tuple[Any, Any]:
    """Return rows and columns of a model's images and of their patches; None where unsaid."""
    inner: Any = unwrap(module)
    tower = tower_of(inner)
    if tower is not None:
        return tower.image_size, tower.patch_size
    embed = getattr(inner, "patch_embed", None)
    return getattr(embed, "img_size", None), getattr(embed, "patch_size", None)


def _ask_hub(name: str) -> None:
    """Raise at once what the HTTP client raises, if weights that are not here cannot be fetched."""
    if (source := _on_hub(name)) is None:
        return
    repository, files = source
    if any(isinstance(try_to_load_from_cache(repository, file), str) for file in files):
        return
    ask_hub(repository, files[0])


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
    return not name.startswith(_SOURCES) and is_factory(name)


def _from_factory(name: str, options: Options) -> nn.Module:
    module = call_factory(name, options)
    _check_grid(module, options)
    return module


def _with_checkpoint(name: str, file: Path, options: Options) -> nn.Module:
    """Build the model that a checkpoint is for, say what was done to fit it in, and load it."""
    tables = read_tables(file)
    state: Mapping[str, Tensor]
    if _is_factory(name) or name.startswith(PREFIX):
        module = untrained(ModelName(name), options)
        target = module.model if isinstance(module, HuggingFaceModel) else module
        state, notes = fit_table(tables, target)
    else:
        target, state, notes = _fitting(name, tables, options)
        module = target
    differing = list(list_misfits(target.state_dict(), state))
    if differing:
        raise ModelError(
            f"checkpoint {file} does not fit {name} in {len(differing)} tensors: "
            f"{'; '.join(differing[:3])}{explain_misfit(state)}"
        )
    target.load_state_dict(state)
    say(file, notes)
    return module


def _fitting(
    name: str, tables: Mapping[str, Table], options: Options
) -> tuple[nn.Module, Mapping[str, Tensor], tuple[str, ...]]:
    """Return a model with the checkpoint's classes and pooling, unless `options` say others."""
    module = _bare(name, options)
    state, notes = fit_table(tables, module)
    if "global_pool" not in options and (pool := other_pool(state, module.state_dict())):
        module = _bare(name, {**options, "global_pool": pool})
        state, notes = fit_table(tables, module)
        notes = (*notes, f"the model is built with global_pool={pool!r}, as its norms are named")
    if getattr(module, "num_classes", None) == 0 and without_head(state) != state:
        return module, without_head(state), (*notes, "its head is left out")
    missing = module.state_dict().keys() - state.keys()
    if missing and not without_head({name: torch.empty(0) for name in missing}):
        module.reset_classifier(0)  # type: ignore[operator]
        return module, state, (*notes, "it has no head, so that the model returns embeddings")
    return _with_head_of(state, module), state, notes


def _with_head_of(state: Mapping[str, Tensor], module: nn.Module) -> nn.Module:
    """Give a timm model as many classes as the checkpoint's head has."""
    config: Any = module.pretrained_cfg
    classifier = config.get("classifier", "head")  # a tuple of names in distilled models
    head = classifier if isinstance(classifier, str) else classifier[0]
    weight = state.get(f"{head}.weight")
    reset: Any = module.reset_classifier
    if weight is not None and len(weight) != module.num_classes:
        reset(len(weight))
    return module
