"""Whatever follows `--data`: a folder, the bundled scenes, or a data set that timm can open."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset
from torch import Tensor

from tokensearch.data.bundled import bundled_splits
from tokensearch.data.config import DIGITS, is_named, scheme_of
from tokensearch.data.fair import choose_evenly, shrink_sizes
from tokensearch.data.folder import folder_splits, to_pixels
from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, Purpose, Sizes, Split, Splits
from tokensearch.errors import DataError, first_line


def splits_from(
    source: str,
    *,
    data_config: Mapping[str, Any],
    sizes: Sizes,
    seed: int,
    class_map: Path | None = None,
    class_names: Sequence[str] | None = None,
) -> Splits:
    """Return three disjoint splits of a folder, of `digits`, of `hfds/NAME` or of `torch/NAME`.

    A folder that is there goes before a name.
    A named set gives its validation part, and is downloaded if need be: torchvision's to
    `datasets` beside torch hub's folder, Hugging Face's to its own cache. Other arguments and
    errors are those of `folder_splits`.

    Raises:
        DataError: Also when the set cannot be opened.
    """
    if source == DIGITS and not Path(source).exists():
        return bundled_splits(data_config=data_config, sizes=sizes)
    if not is_named(source):
        return folder_splits(
            Path(source),
            data_config=data_config,
            sizes=sizes,
            seed=seed,
            class_map=class_map,
            class_names=class_names,
        )
    preprocessing = Preprocessing.of(data_config)
    dataset = _opened(source)
    sizes = shrink_sizes(sizes, len(dataset), where=f"data set {source}")
    parts = choose_evenly(_labels(dataset), sizes, seed=seed)
    splits = {p: _split(p, parts[p], dataset, (source, preprocessing)) for p in PURPOSES}
    return Splits(f"data set {source}", **splits)


def _opened(source: str) -> Any:
    scheme = scheme_of(source)
    root = str(Path(torch.hub.get_dir()).parent / "datasets") if scheme == "torch" else None
    try:
        return create_dataset(source, root=root, split="validation", download=scheme == "torch")
    except Exception as error:
        # Network, missing packages, unknown names: every library behind timm raises its own kind.
        raise DataError(f"data set {source} cannot be opened: {first_line(error)}") from error


def _labels(dataset: Any) -> Sequence[int]:
    """Return a label per image where they can be had without decoding; else one for all."""
    labels = getattr(dataset, "targets", None)
    return [0] * len(dataset) if labels is None else [int(label) for label in labels]


def _split(
    purpose: Purpose, indices: Sequence[int], dataset: Any, origin: tuple[str, Preprocessing]
) -> Split:
    source, preprocessing = origin
    transform = to_pixels(preprocessing)

    def read(index: int) -> tuple[Tensor, int]:
        image, label = dataset[indices[index]]
        return transform(image.convert("RGB")), int(label)

    recipe = {"source": source, "images": len(dataset), "indices": sorted(indices)}
    pixels = Pixels(read, len(indices), preprocessing)
    return Split(purpose, pixels, digest(recipe, preprocessing), labelled=True)
