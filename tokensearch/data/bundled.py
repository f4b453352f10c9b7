"""The labelled images that come with the package: digit scenes, for any model of ten classes."""

from collections.abc import Mapping

from torch import Tensor

from tokensearch.data.digits import CLASSES, digit_ids
from tokensearch.data.pixels import Pixels, Preprocessing
from tokensearch.data.scenes import scenes_digest, split_scenes
from tokensearch.data.splits import PURPOSES, Purpose, Sizes, Split, Splits
from tokensearch.errors import DataError

# Scenes share digits, of which some are hard to read: the correlation of two scenes' right answers,
# times the digits of the split (`python -m tests.bench reuse`). That of changes is none.
_CORRELATION = 0.21


def bundled_splits(*, data_config: Mapping[str, object], sizes: Sizes) -> Splits:
    """Return digit scenes at the model's input size, drawn when first looked at.

    Args:
        data_config: timm's data config of the model.
        sizes: Images per split; any number, since scenes are drawn.

    Raises:
        DataError: The model does not take square RGB images.
    """
    preprocessing = Preprocessing.of(data_config)
    if preprocessing.columns_px is not None:
        rows, columns = preprocessing.shape
        raise DataError(
            f"digit scenes are square, and the model takes {rows} x {columns} pixels; give images "
            f"with --data DIR, or a square --img-size"
        )
    splits = {p: _split(p, sizes.of(p), preprocessing) for p in PURPOSES}
    return Splits("digit scenes", **splits)


def _split(purpose: Purpose, count: int, preprocessing: Preprocessing) -> Split:
    size = preprocessing.size_px

    def read(index: int) -> tuple[Tensor, int]:
        """Draw one scene: of 2,000 a short run looks at a few, and `Pixels` keeps those."""
        images, labels = split_scenes(purpose, index + 1, size=size, first=index)
        return images[0], int(labels[0])

    dataset = Pixels(read, count, preprocessing)
    return Split(
        purpose,
        dataset,
        scenes_digest(purpose, count, size),
        labelled=True,
        classes=CLASSES,
        correlation=_CORRELATION / len(digit_ids(purpose)),
    )
