"""A folder of the user's own images, one sub-folder per class, as ImageNet has it."""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from timm.data import create_transform
from torch import Tensor

from tokensearch.data.fair import choose_evenly, shrink_sizes
from tokensearch.data.images import SUFFIXES, read_image, refuse_loops, size_of
from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, UNLABELLED, Purpose, Sizes, Split, Splits
from tokensearch.errors import DataError, TokensearchWarning

Sample = tuple[Path, int]  # an image file and its label

_PARTS = ("validation", "val", "test")  # sub-folders that are taken instead, in timm's order
_NAMED = 5  # folders that a warning names


def folder_splits(
    directory: Path,
    *,
    data_config: Mapping[str, Any],
    sizes: Sizes,
    seed: int,
    class_map: Path | None = None,
    class_names: Sequence[str] | None = None,
) -> Splits:
    """Return three disjoint, stratified samples of a folder's images.

    Classes are the sub-folders, numbered in natural order (`n2` before `n10`), those without images
    too; hidden ones are none. With a sub-folder `val`, `validation` or `test` that one is taken, as
    in timm. Images without class folders are unlabelled. With fewer images than asked for, the
    splits shrink (see `fair.shrink_sizes`).

    Args:
        directory: The folder.
        data_config: timm's data config of the model.
        sizes: Images per split.
        seed: With the names of the images it decides who goes where (see `fair.chosen`).
        class_map: timm's class map, a text file with one folder name per line, for a folder that
            holds a part of the model's classes.
        class_names: What the model calls its classes, in order. Where all folders are called so,
            they have these numbers.

    Raises:
        DataError: No such folder, no images or too few, or a class map that does not fit.
    """
    scanned = scan_folder(directory, class_map, class_names)
    root, samples, classes, exact = scanned
    preprocessing = Preprocessing.of(data_config)
    parts = divide_samples(scanned, sizes, seed=seed, directory=directory)
    splits = {
        p: replace(
            _split(p, [samples[i] for i in parts[p]], root, preprocessing),
            classes=classes,
            all_classes=exact,
        )
        for p in PURPOSES
    }
    return Splits(f"folder {directory.name}", **splits)


def divide_samples(
    scanned: "ScannedFolder", sizes: Sizes, *, seed: int, directory: Path
) -> dict[Purpose, list[int]]:
    """Return which samples of a folder each split gets, by index (see `fair.choose_evenly`)."""
    root, samples, _, _ = scanned
    sizes = shrink_sizes(sizes, len(samples), where=f"folder {directory}")
    names = [path.relative_to(root).as_posix() for path, _ in samples]
    return choose_evenly([label for _, label in samples], sizes, seed=seed, names=names)


def scan_folder(
    directory: Path, class_map: Path | None, class_names: Sequence[str] | None = None
) -> "ScannedFolder":
    """Return the folder that holds the classes, its images in natural order, and their labels."""
    if not directory.exists():
        raise DataError(f"folder {directory} does not exist")
    if not directory.is_dir():
        raise DataError(f"{directory} is not a folder of images")
    refuse_loops(directory)
    root = next((directory / name for name in _PARTS if (directory / name).is_dir()), directory)
    loose, folders = _images_in(root), list_class_folders(root)
    classes = {folder: _images_of_class(folder) for folder in folders}
    images = sum(map(len, classes.values()))
    if not images and not loose:
        raise DataError(
            f"folder {directory} holds no images ({', '.join(SUFFIXES)}); give one with a folder "
            f"of images for each class"
        )
    if not images:
        return ScannedFolder(root, [(path, UNLABELLED) for path in loose], None, exact=False)
    if loose:
        # As a class of their own they would shift the number of every other.
        raise DataError(
            f"folder {root} holds {len(loose)} images outside its class folders; move them into one"
        )
    lines = _named(folders, class_names) if class_map is None else _read_class_map(class_map)
    numbers, count = _numbered(folders, lines)
    samples = [(path, numbers[f]) for f in folders if f in numbers for path in classes[f]]
    if not samples:
        raise DataError(f"folder {directory} holds no images of the classes in {class_map}")
    _say_left_out(root, classes, numbers)
    return ScannedFolder(root, samples, count, exact=lines is None)


class ScannedFolder(NamedTuple):
    """The images of a folder, with the labels that their folders give them."""

    root: Path
    samples: list[Sample]
    classes: int | None  # of the labels
    exact: bool  # they are all classes, and not the first of a model's


def list_class_folders(root: Path) -> list[Path]:
    """Sub-folders in natural order, but for hidden ones and those that systems leave behind."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    return sorted(
        (path for path in folders if not _is_hidden(path)), key=lambda path: _natural(path.name)
    )


def _is_hidden(path: Path) -> bool:
    return path.name.startswith((".", "__", "@"))


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Order as timm's: numbers by their value, letters without case."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts if part]


def _images_in(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(
        (path for path in files if not path.name.startswith(".") and not path.is_dir()),
        key=lambda path: _natural(path.name),
    )


def _images_of_class(folder: Path) -> list[Path]:
    """Images of one class; DataError where they lie in folders within, which could be classes."""
    for inside in folder.rglob("*"):
        if inside.is_dir() and not _is_hidden(inside) and _images_in(inside):
            raise DataError(
                f"folder {inside} holds images within the class folder {folder.name}; move them "
                f"into it, or give the folder that holds the classes"
            )
    return _images_in(folder)


def _numbered(folders: Sequence[Path], lines: Sequence[str] | None) -> tuple[dict[Path, int], int]:
    """Number classes by their order, empty ones too, or by the names of all classes."""
    if lines is None:
        return {folder: number for number, folder in enumerate(folders)}, len(folders)
    known = {name: number for number, name in enumerate(lines) if name}
    return {f: known[f.name] for f in folders if f.name in known}, len(lines)


def _read_class_map(class_map: Path) -> list[str]:
    if not class_map.is_file():
        raise DataError(f"class map {class_map} does not exist")
    if class_map.suffix != ".txt":
        raise DataError(f"class map {class_map} is no .txt file, with one folder name per line")
    return [line.strip() for line in class_map.read_text(errors="replace").splitlines()]


def _named(folders: Sequence[Path], class_names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the model's own names where the folders have them; say it where only some have."""
    strange = [folder.name for folder in folders if folder.name not in (class_names or ())]
    if class_names is not None and strange and len(strange) < len(folders):
        warnings.warn(
            f"class folders are numbered by their order, since the model has no class "
            f"{strange[0]!r}, though it has others of them; give --class-map FILE if they are not "
            f"in its order",
            TokensearchWarning,
            stacklevel=5,
        )
    return None if strange else class_names


def _say_left_out(
    root: Path, classes: Mapping[Path, Sequence[Path]], numbers: Mapping[Path, int]
) -> None:
    """Name the folders that give no images, so that nobody takes them for counted."""
    empty = [folder.name for folder in classes if folder in numbers and not classes[folder]]
    unknown = [folder.name for folder in classes if folder not in numbers]
    hidden = [p.name for p in root.iterdir() if p.is_dir() and _is_hidden(p)]
    for names, what in (
        (empty, "hold no images and keep their numbers"),
        (unknown, "are not in the class map and left out"),
        (sorted(hidden), "are hidden and left out"),
    ):
        if names:
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            warnings.warn(
                f"{len(names)} folders in {root} {what}: {shown}", TokensearchWarning, stacklevel=4
            )


def read_samples(samples: Sequence[Sample], preprocessing: Preprocessing) -> Pixels:
    """Return images as the model takes them, decoded when first looked at."""
    transform = to_pixels(preprocessing)

    def read(index: int) -> tuple[Tensor, int]:
        path, label = samples[index]
        return transform(read_image(path)), label

    return Pixels(read, len(samples), preprocessing)


def digest_samples(samples: Sequence[Sample], root: Path, preprocessing: Preprocessing) -> str:
    """Return "sha256:..." of which images these are: names, bytes and labels.

    With its label: a class map changes what an answer is held against.
    """
    files = [(str(path.relative_to(root)), size_of(path), label) for path, label in samples]
    return digest(sorted(files), preprocessing)


def _split(
    purpose: Purpose, samples: Sequence[Sample], root: Path, preprocessing: Preprocessing
) -> Split:
    return Split(
        purpose,
        read_samples(samples, preprocessing),
        digest_samples(samples, root, preprocessing),
        labelled=samples[0][1] != UNLABELLED,
    )


def to_pixels(preprocessing: Preprocessing) -> Any:
    """Return timm's evaluation transform, un-normalised: PIL image -> uint8."""
    return create_transform(
        input_size=(3, *preprocessing.shape),
        is_training=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        normalize=False,
    )
