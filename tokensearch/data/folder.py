"""A folder of the user's own images, one sub-folder per class, as ImageNet has it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.data import create_dataset, create_transform
from torch import Tensor

from tokensearch.data.fair import choose_evenly, shrink_sizes
from tokensearch.data.images import read_image, refuse_loops, size_of
from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, UNLABELLED, Purpose, Sizes, Split, Splits
from tokensearch.errors import DataError

Sample = tuple[Path, int]  # an image file and its label


def folder_splits(
    directory: Path,
    *,
    data_config: Mapping[str, Any],
    sizes: Sizes,
    seed: int,
    class_map: Path | None = None,
) -> Splits:
    """Return three disjoint, stratified samples of a folder's images.

    Classes are the sub-folders, numbered in natural order (`n2` before `n10`). With a sub-folder
    `val`, `validation` or `test` that one is taken, as in timm. Images without class folders are
    unlabelled. With fewer images than asked for, the splits shrink (see `fair.shrink_sizes`).

    Args:
        directory: The folder.
        data_config: timm's data config of the model.
        sizes: Images per split.
        seed: With the names of the images it decides who goes where (see `fair.chosen`).
        class_map: timm's class map, a text file with one folder name per line, for a folder that
            holds a part of the model's classes.

    Raises:
        DataError: No such folder, no images or too few, or a class map that does not fit.
    """
    root, samples = _scan(directory, class_map)
    sizes = shrink_sizes(sizes, len(samples), where=f"folder {directory}")
    preprocessing = Preprocessing.of(data_config)
    names = [path.relative_to(root).as_posix() for path, _ in samples]
    parts = choose_evenly([label for _, label in samples], sizes, seed=seed, names=names)
    splits = {p: _split(p, [samples[i] for i in parts[p]], root, preprocessing) for p in PURPOSES}
    return Splits(f"folder {directory.name}", **splits)


def _scan(directory: Path, class_map: Path | None) -> tuple[Path, list[Sample]]:
    """Return the folder that holds the classes, and its images in natural order."""
    if not directory.exists():
        raise DataError(f"folder {directory} does not exist")
    if not directory.is_dir():
        raise DataError(f"{directory} is not a folder of images")
    if class_map is not None and not class_map.is_file():
        raise DataError(f"class map {class_map} does not exist")
    if class_map is not None and class_map.suffix != ".txt":  # timm would unpickle others
        raise DataError(f"class map {class_map} is no .txt file, with one folder name per line")
    refuse_loops(directory)
    try:
        mapped = None if class_map is None else str(class_map)
        dataset = create_dataset("", root=str(directory), class_map=mapped)
    except (AssertionError, RuntimeError, ValueError, OSError) as error:
        raise DataError(_why_not(directory, class_map)) from error
    root = Path(dataset.reader.root)
    return root, _labelled([(Path(path), label) for path, label in dataset.reader.samples], root)


def _why_not(directory: Path, class_map: Path | None) -> str:
    if class_map is None:
        return f"folder {directory} holds no images"
    return f"folder {directory} holds no images of the classes in {class_map}"


def _labelled(samples: list[Sample], root: Path) -> list[Sample]:
    """Return the samples; without labels where there are no class folders."""
    loose = sum(path.parent == root for path, _ in samples)
    if loose == len(samples):
        return [(path, UNLABELLED) for path, _ in samples]
    if loose:
        # timm would make the loose ones a class of their own, and shift the number of every other.
        raise DataError(
            f"folder {root} holds {loose} images outside its class folders; move them into one"
        )
    return samples


def _split(
    purpose: Purpose, samples: Sequence[Sample], root: Path, preprocessing: Preprocessing
) -> Split:
    transform = to_pixels(preprocessing)

    def read(index: int) -> tuple[Tensor, int]:
        path, label = samples[index]
        return transform(read_image(path)), label

    # With its label: a class map changes what an answer is held against.
    files = [(str(path.relative_to(root)), size_of(path), label) for path, label in samples]
    return Split(
        purpose,
        Pixels(read, len(samples), preprocessing),
        digest(sorted(files), preprocessing),
        labelled=samples[0][1] != UNLABELLED,
    )


def to_pixels(preprocessing: Preprocessing) -> Any:
    """Return timm's evaluation transform, un-normalised: PIL image -> uint8 (3, S, S)."""
    return create_transform(
        input_size=(3, preprocessing.size_px, preprocessing.size_px),
        is_training=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
        normalize=False,
    )
