"""Find, by measuring, which blocks of a Vision Transformer should prune, pool or keep their tokens.

    model = timm.create_model("deit_small_patch16_224", pretrained=True).eval()
    tokensearch.apply(model, "policy.json")

This import loads no torch: the names below are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack

from tokensearch.policy import ModelSpec, Options, Policy, PolicySet, load, load_set, save
from tokensearch.policy import preset as _preset

if TYPE_CHECKING:
    from torch import nn

    from tokensearch.runtime import add_score, applied, apply, remove, trace

__version__ = "0.1.0"
__all__ = [
    "Policy",
    "PolicySet",
    "add_score",
    "applied",
    "apply",
    "load",
    "load_set",
    "preset",
    "remove",
    "save",
    "trace",
]

_LAZY = {"add_score", "apply", "applied", "remove", "trace"}


def preset(name: str, model: "ModelSpec | nn.Module", **options: Unpack[Options]) -> Policy:
    """Return the published schedule `name` for `model`, of which only token counts are read.

    Options, each where the preset has it: `rescale`, `last_block`, `proportional_attention`,
    `score`, `threshold`; see `tokensearch.policy.Options`.
    """
    if isinstance(model, ModelSpec):
        return _preset(name, model, **options)
    from tokensearch.runtime import describe

    return _preset(name, describe(model), **options)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module("tokensearch.runtime"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
