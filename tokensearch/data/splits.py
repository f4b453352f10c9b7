"""Three disjoint sets of images, one per purpose, whatever they come from."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from tokensearch.errors import DataError

Purpose = Literal["search", "select", "report"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

READERS = min(8, os.cpu_count() or 1)  # threads that decode images, which holds no lock
UNLABELLED = -1  # the label of an image without one


class Images(Protocol):
    """What a split leans on; any map-style torch Dataset of single images has it."""

    def __len__(self) -> int:
        """Return how many images there are."""
        ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one image, float (3, S, S), preprocessed, and its label or -1."""
        ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """Images per split: optimised on, finalists chosen on, quoted.

    Raises:
        DataError: A split would be empty.
    """

    search: int
    select: int
    report: int

    def __post_init__(self) -> None:
        for purpose, size in zip(PURPOSES, astuple(self), strict=True):
            if size < 1:
                raise DataError(f"the {purpose} split asks for {size} images; it needs at least 1")

    @property
    def total(self) -> int:
        """Images of all three splits."""
        return self.search + self.select + self.report

    def of(self, purpose: Purpose) -> int:
        """Return the size of one split."""
        size: int = getattr(self, purpose)
        return size


@dataclass(frozen=True, slots=True)
class Split:
    """Images of one purpose, in a fixed order of which every prefix is a fair sample."""

    purpose: Purpose
    dataset: Images
    digest: str  # "sha256:...", of what the images are
    labelled: bool  # False: every label is -1, and only agreement can be measured
    classes: int | None = None  # of the labels, where that is known
    correlation: float = 0.0  # of whether two images are right, since all share what they show
    groups: tuple[int, ...] | None = None  # of images that share what they show; None: none do
    all_classes: bool = True  # labels are numbered without a class map: the model's must be as many

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, size: int, *, limit: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images, float (B, 3, S, S), and labels, int64 (B,), the last batch maybe smaller.

        Args:
            size: Images per batch, B.
            limit: Stop after the first `limit` images.

        Raises:
            DataError: An image cannot be read.
        """
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            yield self.part(start, min(start + size, count))

    def part(self, first: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return images `first` to `stop`, left out, and their labels, as `batches` does."""
        items = [self.dataset[i] for i in range(first, stop)]
        return torch.stack([image for image, _ in items]), torch.tensor([y for _, y in items])


def contents(split: Split, on_image: Callable[[int], None] | None = None) -> tuple[str, ...]:
    """Name every image of a split by all that a model is given of it, bit by bit, and its label.

    Every image is read, several at a time. How it was decoded and prepared is in what comes out;
    where it lies and what it is called are not, so that the same image has one name in every split.

    Args:
        split: What to read.
        on_image: Called with the number of images read so far.

    Raises:
        DataError: An image cannot be read.
    """
    names = []
    with ThreadPoolExecutor(READERS) as pool:
        for name in pool.map(partial(_content, split), range(len(split))):
            names.append(name)
            if on_image is not None:
                on_image(len(names))
    return tuple(names)


def _content(split: Split, index: int) -> str:
    image, label = split.dataset[index]
    name = hashlib.blake2b(f"{image.dtype} {tuple(image.shape)} {label}".encode(), digest_size=16)
    name.update(image.contiguous().numpy().data)
    return name.hexdigest()


@dataclass(frozen=True, slots=True)
class Splits:
    """The three splits of one source of images."""

    name: str  # what the images are, in words
    search: Split
    select: Split
    report: Split

    @property
    def classes(self) -> int | None:
        """How many classes the labels have, where that is known."""
        return self.report.classes

    def check_classes(self, name: str, classes: int) -> None:
        """Hold the labels against the classes of model `name`; DataError if they cannot be its."""
        own = self.classes
        if own is None or own == classes or (own < classes and not self.report.all_classes):
            return
        raise DataError(
            f"the images ({self.name}) have {own} classes and model {name} has {classes}; give "
            f"weights that were trained on them with --checkpoint FILE, the names of all its "
            f"classes with --class-map FILE, or other images"
        )

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be measured; if not, agreement."""
        return self.report.labelled

    def of(self, purpose: Purpose) -> Split:
        """Return one split."""
        split: Split = getattr(self, purpose)
        return split
