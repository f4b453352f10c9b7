"""Image files that are none, or that unpack to far more than they are: one sentence each."""

import os
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.data.test_folder import fill, refusal, splits
from tokensearch.data import images
from tokensearch.data.images import read_image
from tokensearch.errors import DataError


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """A black image, whose pixels are as many as it says only if it is small."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(min((3 * width + 1) * height, 2**20)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (header, *more, chunk(b"IDAT", rows), chunk(b"IEND", b""))
    )


BOMB = zlib.compress(bytes(64 * 2**20), 9)
BOMBS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + BOMB),
}


def said(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("width", "height"), [(100_000, 1_001), (10_001, 10_000), (30_000, 30_000), (2**30, 2**30)]
)
def test_an_image_of_too_many_pixels_is_refused_before_they_are_decoded(
    tmp_path: Path, width: int, height: int
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(width, height))

    assert said(path).startswith(f"image {path} cannot be read: ")


def test_a_picture_of_a_thousand_scans_is_refused_before_they_are_decoded(tmp_path: Path) -> None:
    plain, many = tmp_path / "plain.jpg", tmp_path / "many.jpg"
    Image.new("RGB", (2000, 1000)).save(plain, progressive=True)
    data = plain.read_bytes()
    last = data.rindex(b"\xff\xda")
    many.write_bytes(data[:last] + data[last:-2] * 600 + data[-2:])

    assert read_image(plain).size == (2000, 1000)
    assert said(many) == (
        f"image {many} cannot be read: it has 2000 x 1000 pixels in 609 scans, together over "
        f"1,000,000,000; save it anew"
    )


def test_a_line_of_pixels_which_would_be_resized_to_billions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", (33, 1)).save(path)

    assert said(path) == (
        f"image {path} cannot be read: it has 33 x 1 pixels; one side may be at most 32 times the "
        f"other"
    )


def test_a_bmp_of_many_coded_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = tmp_path / "runs.bmp", b"\x08\x01\0\0" * 8 + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(header) + 1024
    path.write_bytes(
        struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start)
        + (header + b"".join(bytes((i, i, i, 0)) for i in range(256)) + rows)
    )
    assert read_image(path).getpixel((3, 3)) == (1, 1, 1)

    monkeypatch.setattr(images, "MAX_RUN_BYTES", 1000)
    assert said(path).endswith(
        "it is a BMP of coded runs with more than 1,000 bytes; save it as PNG"
    )


@pytest.mark.parametrize("kind", BOMBS)
def test_metadata_that_unpacks_to_far_more_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(8, 8, BOMBS[kind]))

    # The words after it are Pillow's, and another release has others.
    start = f"image {path} cannot be read: Decompressed data too large"
    assert said(path).lower().startswith(start.lower())


def test_a_file_of_too_many_bytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 100)
    path = tmp_path / "long.png"
    path.write_bytes(png(8, 8, chunk(b"tEXt", b"a\0" + bytes(100))))

    assert "bytes; at most 100 are read" in said(path)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    for i in range(8):
        (folder / "n2" / f"{i}.png").unlink()
        (folder / "n2" / f"{i}.png").symlink_to(tmp_path / "gone.png")

    assert refusal(folder).endswith("the file cannot be read: No such file or directory")


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)

    assert said(path) == f"image {path}: the file cannot be read: an image is a regular file"


def test_a_device_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "zero.png"
    path.symlink_to("/dev/zero")

    assert said(path).endswith("an image is a regular file")


def test_other_formats_are_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "program.png"
    Image.new("RGB", (8, 8)).save(path, format="EPS")

    assert said(path) == (
        f"image {path} cannot be read: it is none of JPEG, PNG, WEBP, BMP, GIF, TIFF"
    )


def test_a_folder_that_holds_itself_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    for name in ("n2", "n3"):
        (folder / name / "again").symlink_to(folder)

    assert "leads to the same images as" in refusal(folder)


def test_folders_that_hold_one_another_many_times_over_are_refused_at_once(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    around = folder / "n2"
    for depth in range(40):  # 4 ** 40 ways to the last
        held = around / f"{depth}"
        held.mkdir()
        for number in range(3):
            (around / f"link{number}").symlink_to(held)
        around = held

    assert refusal(folder).endswith("which would count twice; remove one of the two links")


def test_links_to_images_and_to_folders_are_followed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    linked = tmp_path / "b"
    linked.mkdir()
    for name in ("n10", "n2", "n3"):
        (linked / name).symlink_to(folder / name)

    assert len(splits(linked).search) == 6
