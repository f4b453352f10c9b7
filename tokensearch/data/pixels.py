"""From bytes to what a model takes: preprocessing settings, and images that are decoded once."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from tokensearch.errors import DataError

# A search looks at the same images hundreds of times, and decoding a photograph costs about 10 ms.
# Splits up to this size stay decoded, as bytes: 7,000 images of 224 px. Larger ones are re-read.
KEPT_BYTES = 2**30

Read = Callable[[int], tuple[Tensor, int]]  # index -> uint8 (3, rows, columns) and label


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What a model expects of its images: timm's data config, checked and typed."""

    size_px: int  # rows of the input
    mean: tuple[float, ...]  # per channel, of values 0 to 1
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float  # side of the centre crop over the resized shorter side
    crop_mode: str
    columns_px: int | None = None  # where they are not as many as the rows

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.size_px, self.columns_px or self.size_px

    @classmethod
    def of(cls, data_config: Mapping[str, Any]) -> "Preprocessing":
        """Read timm's data config; what it leaves out is as timm has it.

        Raises:
            DataError: The input is not RGB.
        """
        channels, rows, columns = data_config["input_size"]
        if channels != 3:
            raise DataError(
                f"the model takes images of {channels} x {rows} x {columns}; "
                "only RGB images are supported"
            )
        return cls(
            size_px=rows,
            mean=tuple(data_config["mean"]),
            std=tuple(data_config["std"]),
            interpolation=str(data_config.get("interpolation", "bicubic")),
            crop_pct=float(data_config.get("crop_pct", 0.875)),
            crop_mode=str(data_config.get("crop_mode", "center")),
            columns_px=None if columns == rows else columns,
        )

    def normalised(self, image: Tensor) -> Tensor:
        """Return uint8 (..., 3, rows, columns) as the model takes it, float32 of that shape."""
        mean, std = (
            torch.tensor(values, device=image.device)[:, None, None]
            for values in (self.mean, self.std)
        )
        return image.float().div_(255).sub_(mean).div_(std)


class Pixels:
    """Images kept as bytes once read, and normalised as they are handed out."""

    def __init__(self, read: Read, count: int, preprocessing: Preprocessing) -> None:
        self._read = read
        self._count = count
        self._preprocessing = preprocessing
        self._kept: dict[int, tuple[Tensor, int]] = {}
        self._keeps = count * 3 * prod(preprocessing.shape) <= KEPT_BYTES

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        item = self._kept.get(index) or self._read(index)
        if self._keeps:
            self._kept[index] = item
        image, label = item
        return self._preprocessing.normalised(image), label


def digest(recipe: object, preprocessing: Preprocessing) -> str:
    """Return "sha256:..." of what images are and how they are prepared.

    The preparation counts, since the accuracy of a split changes with it.
    """
    prepared = {name: value for name, value in asdict(preprocessing).items() if value is not None}
    text = json.dumps([recipe, prepared], sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
