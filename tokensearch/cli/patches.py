"""The picture of `show --image`: what is left of a user's images under policies."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokensearch.errors import DataError, ModelError, RunError
from tokensearch.policy import Policy

if TYPE_CHECKING:
    from tokensearch.models import Options
    from tokensearch.report.patches import PolicyRow

MOST_IMAGES = 16
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """Which images are drawn, by which weights, and where to.

    Raises:
        DataError: An image is not there, or they are too many.
        ModelError: A file of the model is not there.
        RunError: The picture cannot be written.
    """

    images: Sequence[Path]
    picture: Path
    checkpoint: Path | None
    data_config: Path | None

    def __post_init__(self) -> None:
        """Refuse before anything heavy is imported."""
        if len(self.images) > MOST_IMAGES:
            raise DataError(
                f"--image is given {len(self.images)} times; at most {MOST_IMAGES} are drawn"
            )
        for path in self.images:
            if not path.is_file():
                what = "is a folder" if path.is_dir() else "does not exist"
                raise DataError(f"image {path} {what}; give an image file")
        for file, what in ((self.checkpoint, "checkpoint"), (self.data_config, "data config")):
            if file is not None and not file.exists():
                raise ModelError(f"{what} {file} does not exist")
        folder = self.picture.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            what = "cannot be written to" if folder.is_dir() else "does not exist"
            raise RunError(f"folder {folder} of --out {what}; name a file elsewhere")


def draw_survivors(
    policies: Sequence[Policy],
    names: Sequence[str],
    asked: PictureOptions,
    model: str,
    options: "Options",
) -> "list[PolicyRow]":
    """Draw the images under one or two policies, write the picture, and return what it shows."""
    import torch

    from tokensearch.data.folder import read_samples
    from tokensearch.data.pixels import Preprocessing
    from tokensearch.data.splits import UNLABELLED
    from tokensearch.evaluation.patch_trace import trace_images
    from tokensearch.models import load_model, resolve_model
    from tokensearch.report.patches import (
        PolicyRow,
        check_picture,
        draw_patches,
        save_patches,
    )

    check_picture(asked.picture)
    loaded = load_model(
        resolve_model(model),
        checkpoint=asked.checkpoint,
        data_config=asked.data_config,
        options=options,
    )
    samples = [(path, UNLABELLED) for path in asked.images]
    pixels = read_samples(samples, Preprocessing.of(loaded.data_config))
    images = torch.stack([pixels[index][0] for index in range(len(pixels))])
    labels = [path.name for path in asked.images]
    rows = [
        PolicyRow(
            Path(name).name,
            policy,
            trace_images(loaded.module, policy, images, names=labels, config=loaded.data_config),
        )
        for name, policy in zip(names, policies, strict=True)
    ]
    save_patches(draw_patches(rows), asked.picture)
    return rows


def traces_to_json(rows: "Sequence[PolicyRow]") -> dict[str, Any]:
    """Return which token holds each patch behind each block, by policy and image."""
    return {
        "patches": [
            {
                "policy": row.name,
                "image": image.name,
                "columns": image.trace.columns,
                "token_of_patch_by_block": [list(tokens) for tokens in image.trace.tokens],
            }
            for row in rows
            for image in row.images
        ]
    }
