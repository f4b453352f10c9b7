"""Folders of small models of transformers, each with an image processor of its kind."""

import importlib
from pathlib import Path
from typing import Any

from tests.runtime.towers import build

SIZES: dict[str, Any] = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
SQUARE = {"height": 32, "width": 32}

# Class of the model -> its processor's folder, class and settings: a squashed square, a square cut
# from a larger one, a shorter side and a crop, one of another size than the configuration says.
PROCESSORS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViTForImageClassification": ("vit", "ViTImageProcessor", {"size": SQUARE}),
    "DeiTForImageClassificationWithTeacher": (
        "deit",
        "DeiTImageProcessor",
        {"size": {"height": 36, "width": 36}, "crop_size": SQUARE},
    ),
    "CLIPVisionModel": (
        "clip",
        "CLIPImageProcessor",
        {"size": {"shortest_edge": 32}, "crop_size": SQUARE},
    ),
    "CLIPForImageClassification": ("vit", "ViTImageProcessor", {"size": SQUARE}),
    "Dinov2Model": (
        "bit",
        "BitImageProcessor",
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}},
    ),
    "SiglipVisionModel": ("siglip", "SiglipImageProcessor", {"size": SQUARE}),
}


def make_processor(name: str) -> Any:
    """Return the image processor that goes with a class of models."""
    folder, kind, settings = PROCESSORS[name]
    module = importlib.import_module(f"transformers.models.{folder}.image_processing_{folder}")
    return getattr(module, kind)(**SIZES, **settings)


def save(name: str, folder: Path, **changes: Any) -> Path:
    """Write a model and its image processor as `save_pretrained` does."""
    build(name, **changes).save_pretrained(folder)
    make_processor(name).save_pretrained(folder)
    return folder
