"""Images to train on: a fourth purpose, which shares no image with the three splits."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokensearch.data.bundled import bundled_splits
from tokensearch.data.config import DIGITS
from tokensearch.data.digits import CLASSES
from tokensearch.data.folder import (
    Sample,
    ScannedFolder,
    digest_samples,
    divide_samples,
    list_class_folders,
    read_samples,
    scan_folder,
)
from tokensearch.data.pixels import Preprocessing, digest
from tokensearch.data.scene_batches import training_scenes
from tokensearch.data.scenes import SCENE_PX, TALLY, VERSION
from tokensearch.data.splits import READERS, UNLABELLED, Sizes
from tokensearch.errors import DataError

TRAIN = "train"  # the sub-folder that holds what to train on

Draw = Callable[[int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class TrainingImages:
    """Images to train on, a batch per step."""

    name: str
    digest: str  # "sha256:...", of what they are
    classes: int | None  # one more than the largest label; None: there are no labels
    # Step and images of a batch -> images, float (B, 3, rows, columns), and labels, int64 (B,).
    # Equal steps give equal batches, whatever was drawn before.
    draw: Draw

    @property
    def labelled(self) -> bool:
        """Whether labels say what is right."""
        return self.classes is not None


@dataclass(frozen=True, slots=True)
class SplitSource:
    """Where the three splits come from, so that nothing of them is trained on."""

    data: str | None  # as `--data` has it; None: what comes with the package
    digits: bool  # the splits are the bundled scenes
    sizes: Sizes
    seed: int
    class_map: Path | None = None
    class_names: tuple[str, ...] | None = None  # what the model calls its classes
    pictures: Path | None = None  # the splits are pictures of this folder, or crops of them


def training_images(
    train_data: str | None, source: SplitSource, *, data_config: Mapping[str, Any], seed: int
) -> TrainingImages:
    """Return what to train on.

    That is the folder `train_data`; else the sub-folder `train` of the splits' own folder; else
    what the splits leave over of it. Beside digit scenes it is scenes of other digits.

    Raises:
        DataError: There is nothing, or it shares images or numbers of classes with the splits in a
            way that makes results untrue.
    """
    preprocessing = Preprocessing.of(data_config)
    if train_data == DIGITS or (train_data is None and source.digits):
        bundled_splits(data_config=data_config, sizes=Sizes(1, 1, 1))  # refuses what is not square
        return _scenes(preprocessing, seed)
    folder = None if source.data is None or source.digits else Path(source.data)
    if train_data is None and (folder is None or not folder.is_dir()):
        raise DataError(
            "nothing is left to train on beside the images that are measured; give a folder with "
            "--train-data DIR"
        )
    held_out = None if folder is None or not folder.is_dir() else _held_out(folder, source)
    if train_data is not None:
        _check_pictures(Path(train_data), source)
        return _folder(Path(train_data), source, held_out, preprocessing=preprocessing, seed=seed)
    assert folder is not None
    assert held_out is not None
    if (folder / TRAIN).is_dir():
        return _folder(folder / TRAIN, source, held_out, preprocessing=preprocessing, seed=seed)
    scanned, paths = held_out
    left = [sample for sample in scanned.samples if sample[0].resolve() not in paths]
    if not left:
        raise DataError(
            f"the three splits take all {len(scanned.samples)} images of folder {folder}; leave "
            f"some with smaller --images, or give others with --train-data DIR"
        )
    name = f"what the splits leave of folder {folder.name}"
    return _samples(name, left, scanned.root, preprocessing=preprocessing, seed=seed)


def _scenes(preprocessing: Preprocessing, seed: int) -> TrainingImages:
    """Scenes of the splits' own recipe, of digits that no split shows."""
    size = preprocessing.size_px
    scale = size / SCENE_PX
    recipe = TALLY.scaled(scale)

    def draw(step: int, count: int) -> tuple[Tensor, Tensor]:
        scenes = training_scenes((seed, step), count, recipe, size=size, photo_scale=scale)
        return preprocessing.normalised(scenes.images), scenes.labels

    name = digest({"scenes": "train", "version": VERSION, "seed": seed}, preprocessing)
    return TrainingImages("digit scenes of other digits", name, CLASSES, draw)


def _held_out(folder: Path, source: SplitSource) -> tuple[ScannedFolder, frozenset[Path]]:
    """Return the folder of the splits, and where their images really lie."""
    scanned = scan_folder(folder, source.class_map, source.class_names)
    parts = divide_samples(scanned, source.sizes, seed=source.seed, directory=folder)
    chosen = (scanned.samples[i][0].resolve() for indices in parts.values() for i in indices)
    return scanned, frozenset(chosen)


def _folder(
    folder: Path,
    source: SplitSource,
    held_out: tuple[ScannedFolder, frozenset[Path]] | None,
    *,
    preprocessing: Preprocessing,
    seed: int,
) -> TrainingImages:
    """Return a folder of its own, held against that of the splits."""
    if (folder / TRAIN).is_dir():
        folder = folder / TRAIN
    scanned = scan_folder(folder, source.class_map, source.class_names)
    if held_out is not None:
        own, paths = held_out
        shared = sum(path.resolve() in paths for path, _ in scanned.samples)
        if shared:
            raise DataError(
                f"folder {folder} holds {shared} of the images that are measured; give one without "
                f"them"
            )
        _check_classes(folder, scanned, own, source)
    name = f"folder {folder.name}"
    if held_out is None and scanned.classes and source.class_map is None:
        name += ", labelled in the order of its class folders"
    return _samples(name, scanned.samples, scanned.root, preprocessing=preprocessing, seed=seed)


def _check_pictures(folder: Path, source: SplitSource) -> None:
    """Refuse to train on pictures that the splits are made of; crops show parts of them."""
    if source.pictures is None:
        return
    own, folder = source.pictures.resolve(), folder.resolve()
    if own.is_relative_to(folder) or folder.is_relative_to(own):
        raise DataError(
            f"folder {folder} holds pictures of {own}, which are measured; give a folder beside it"
        )


def _check_classes(
    folder: Path, scanned: ScannedFolder, own: ScannedFolder, source: SplitSource
) -> None:
    """Refuse folders that number classes otherwise: a label would mean two things."""
    if source.class_map is not None or scanned.classes is None or own.classes is None:
        return
    names, others = (
        [path.name for path in list_class_folders(each.root)] for each in (scanned, own)
    )
    if names != others:
        odd = sorted(set(names) ^ set(others)) or names
        raise DataError(
            f"folder {folder} has other class folders than the images that are measured "
            f"({', '.join(odd[:3])}), so that numbers of classes differ; give the names of all "
            f"classes with --class-map FILE"
        )


def _samples(
    name: str, samples: list[Sample], root: Path, *, preprocessing: Preprocessing, seed: int
) -> TrainingImages:
    """Return files in an order that is drawn anew for every pass through them."""
    images = read_samples(samples, preprocessing)
    pool = ThreadPoolExecutor(READERS)  # threads begin with the first batch, and serve all

    @lru_cache(maxsize=2)  # a batch may end one pass and begin the next
    def order(epoch: int) -> list[int]:
        drawn: list[int] = np.random.default_rng((seed, epoch)).permutation(len(samples)).tolist()
        return drawn

    def draw(step: int, count: int) -> tuple[Tensor, Tensor]:
        places = (divmod(step * count + i, len(samples)) for i in range(count))
        items = list(pool.map(lambda at: images[order(at[0])[at[1]]], places))
        return torch.stack([image for image, _ in items]), torch.tensor([y for _, y in items])

    classes = None if samples[0][1] == UNLABELLED else 1 + max(label for _, label in samples)
    return TrainingImages(name, digest_samples(samples, root, preprocessing), classes, draw)
