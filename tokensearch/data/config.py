"""What a user says of images: their data config in timm's words, and what `--data` may name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokensearch.documents import read_object
from tokensearch.errors import DataError, ModelError

# An image's shorter side is resized to that of the input over `crop_pct`, here to 4,096 pixels at
# most. timm's models take up to 1,024 pixels, by 0.875 to 1.15.
MAX_SIDE, CROPS = 2048, (0.5, 2.0)

DIGITS = "digits"  # the bundled digit scenes, for any model of ten classes
# Schemes of timm whose data sets can be indexed; its streamed ones have no fixed order to split.
SCHEMES = ("hfds", "torch")


def scheme_of(source: str) -> str:
    """Return what stands before the first slash."""
    return source.partition("/")[0].lower()


def is_named(source: str) -> bool:
    """Whether a source is the name of a data set that timm opens; a folder goes before a name."""
    return "/" in source and scheme_of(source) in SCHEMES and not Path(source).exists()


def check_source(source: str) -> None:
    """Refuse what can be no source of images, before anything is imported to read it: DataError."""
    if source != DIGITS and not is_named(source) and not Path(source).exists():
        raise DataError(f"folder {source} does not exist")


def read_data_config(file: Path) -> dict[str, Any]:
    """Return the settings of a JSON file; ModelError where one is not as it must be."""
    try:
        config = read_object(file, what="a data config", error=ModelError)
    except ModelError as error:
        raise ModelError(f"data config {file}: {error}") from error
    for key, value in config.items():
        if key not in _SETTINGS:
            raise ModelError(f"data config {file} has {key!r}; it may have {', '.join(_SETTINGS)}")
        form, fits = _SETTINGS[key]
        if not fits(value):
            raise ModelError(f"{key} in data config {file} is {value!r}; it must be {form}")
    return config


def _three(value: object, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, kind) for v in value)


_NUMBER = (int, float)
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
_SETTINGS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "input_size": (
        f"[channels, rows, columns], of at most {MAX_SIDE} each",
        lambda v: _three(v, int) and min(v) > 0 and max(v) <= MAX_SIDE,
    ),
    "mean": ("three numbers", lambda v: _three(v, _NUMBER)),
    "std": ("three numbers above 0", lambda v: _three(v, _NUMBER) and min(v) > 0),
    "interpolation": (f"one of {', '.join(_INTERPOLATIONS)}", lambda v: v in _INTERPOLATIONS),
    "crop_pct": (
        "a number from {} to {}".format(*CROPS),
        lambda v: isinstance(v, _NUMBER) and CROPS[0] <= v <= CROPS[1],
    ),
    "crop_mode": ("center, squash or border", lambda v: v in ("center", "squash", "border")),
}
