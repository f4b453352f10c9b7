"""Vision models of Hugging Face transformers: where their blocks are, and what their heads read.

They are known by the names of their classes, since the runtime imports torch alone. A tower is the
module that embeds an image and runs the blocks; a head is a model around one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

from torch import nn

# What is read of the tokens beside handing them out: prefix tokens, the average of patch tokens,
# or all tokens in a way that timm's model of that kind shares (SigLIP's attention pooling).
Reads = Literal["prefix", "average", "all"]

_BLOCKS: Mapping[str, str] = {
    "ViTModel": "layers",
    "DeiTModel": "layers",
    "Dinov2Model": "encoder.layer",
    "Dinov2WithRegistersModel": "encoder.layer",
    "DINOv3ViTModel": "model.layer",
    "CLIPVisionModel": "encoder.layers",
    "SiglipVisionModel": "encoder.layers",
}
_HEADS: Mapping[str, tuple[str, Reads]] = {
    "ViTForImageClassification": ("vit", "prefix"),
    "DeiTForImageClassification": ("deit", "prefix"),
    "DeiTForImageClassificationWithTeacher": ("deit", "prefix"),
    "Dinov2ForImageClassification": ("dinov2", "average"),
    "Dinov2WithRegistersForImageClassification": ("dinov2_with_registers", "average"),
    "CLIPVisionModelWithProjection": ("vision_model", "prefix"),
    "CLIPForImageClassification": ("vision_model", "average"),
    "SiglipForImageClassification": ("vision_model", "average"),
}
# Towers whose patch tokens one of those heads averages.
_AVERAGED = frozenset(
    {"CLIPVisionModel", "Dinov2Model", "Dinov2WithRegistersModel", "SiglipVisionModel"}
)
# Towers that resample their positions to each image, so that any count of patches may enter.
_ANY_SIZE = frozenset({"Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel"})
CLASSES = frozenset({*_BLOCKS, *_HEADS})
NAMES = "transformers' ViT, DeiT, Dinov2, DINOv3ViT, CLIP and SigLIP vision models (since its 5.18)"


@dataclass(frozen=True, eq=False)
class Tower:
    """The part of a model of transformers that runs its blocks."""

    module: Any
    kind: str  # name of the class
    reads: Reads  # of the whole model, head included

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, in order."""
        return tuple(self.module.get_submodule(_BLOCKS[self.kind]))

    @property
    def prefix_tokens(self) -> int:
        """Class, distillation and register tokens, which come first."""
        embeds = self.module.embeddings
        registers = getattr(embeds, "register_tokens", None)
        return (
            int(self.has_class_token)
            + int(getattr(embeds, "distillation_token", None) is not None)
            + (0 if registers is None else int(registers.shape[1]))
        )

    @property
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""
        names = ("cls_token", "class_embedding")
        return any(getattr(self.module.embeddings, name, None) is not None for name in names)

    @property
    def width(self) -> int:
        """Features per token."""
        return int(self.module.config.hidden_size)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns of an image, as the configuration says."""
        return _pair(self.module.config.image_size)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of pixels of a patch."""
        return _pair(self.module.config.patch_size)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patches of an image of that size."""
        (rows, columns), patch = self.image_size, self.patch_size
        return rows // patch[0], columns // patch[1]

    @property
    def takes_any_size(self) -> bool:
        """Whether images may have another size than the configuration says."""
        return self.kind in _ANY_SIZE

    @property
    def may_be_averaged(self) -> bool:
        """Whether a head of transformers that stands around such a tower averages its patches."""
        return self.kind in _AVERAGED

    @property
    def rotates(self) -> bool:
        """Whether attention rotates queries and keys by position."""
        return hasattr(self.module, "rope_embeddings")

    @property
    def norm(self) -> nn.Module | None:
        """The norm that all tokens pass between the last block and what is handed out.

        None where there is none: CLIP's last norm is for the class token alone.
        """
        if self.kind == "CLIPVisionModel":
            return None
        norm = getattr(self.module, "layernorm", None) or getattr(self.module, "norm", None)
        return norm or getattr(self.module, "post_layernorm", None)


def tower_of(model: nn.Module) -> Tower | None:
    """Return the tower of a model of transformers, which may be the model itself, or None."""
    for kind in type(model).__mro__:
        if not kind.__module__.startswith("transformers."):
            continue
        if kind.__name__ in _BLOCKS and hasattr(model, "embeddings"):
            reads: Reads = "all" if kind.__name__ == "SiglipVisionModel" else "prefix"
            return Tower(model, kind.__name__, reads)
        if kind.__name__ in _HEADS:
            name, reads = _HEADS[kind.__name__]
            inner = getattr(model, name, None)
            tower = None if inner is None else tower_of(inner)
            return None if tower is None else Tower(tower.module, tower.kind, reads)
    return None


def resampling(model: nn.Module) -> dict[str, bool]:
    """Return the arguments with which a model of transformers takes images of another size."""
    takes = "interpolate_pos_encoding" in signature(model.forward).parameters
    return {"interpolate_pos_encoding": True} if takes else {}


def is_untouched(model: nn.Module, tower: Tower) -> bool:
    """Whether all code between the blocks and what comes out is that of transformers."""
    return all(
        ("forward" not in vars(part) or moves_weights(part))
        and type(part).forward.__module__.startswith("transformers.")
        for part in (model, tower.module)
    )


def moves_weights(part: nn.Module) -> bool:
    """Whether accelerate has put a forward on a module that brings its weights and runs its own."""
    return type(vars(part).get("_hf_hook")).__module__.startswith("accelerate.")


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
