"""The picture of what is left: its pixels say what the trace says."""

import base64
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report.fixtures import FOUND, run_document, run_folder
from tests.report.test_html import LARGEST, Reader
from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Policy, Pool, Prune
from tokensearch.records.patch_trace import (
    PatchTrace,
    PatchTraces,
    TracedImage,
    read_traces,
    write_traces,
)
from tokensearch.report.patches import (
    GOING,
    GONE,
    PolicyRow,
    describe_patches,
    draw_patches,
    patch_table,
    save_patches,
)
from tokensearch.report.run.page import write_report

# Four patches in a row: the first is dropped in block 0, the last two are merged in block 1.
TRACE = PatchTrace(4, ((-1, 0, 1, 2), (-1, 0, 1, 1), (-1, 0, 1, 1)))
POLICY = Policy(ModelSpec("toy", 3, 4, 1, 8), (Prune(0, 3), Pool(1, 2)))


def jpeg(size: tuple[int, int] = (64, 16)) -> bytes:
    encoded = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(encoded, "JPEG")
    return encoded.getvalue()


IMAGE = TracedImage("cat.jpg", jpeg(), TRACE)


def demo_traces() -> PatchTraces:
    """An image of the demo model, whose first half is dropped in block 2."""
    before, after = tuple(range(196)), tuple(max(-1, n - 98) for n in range(196))
    trace = PatchTrace(14, (before, before, *[after] * 10))
    return PatchTraces(FOUND.schedule_hash, (TracedImage("image 1", jpeg((224, 224)), trace),))


def has_colour(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(picture) == colour).all(axis=-1).sum() > 400)  # more than a swatch


def test_blocks_that_change_nothing_are_left_out() -> None:
    rows = patch_table([IMAGE]).rows

    assert rows == [("cat.jpg", "0", "3", "1", "0", "1"), ("cat.jpg", "1", "2", "0", "1", "2")]


def test_what_is_gone_is_dark_and_nothing_is_dark_where_all_is_merged() -> None:
    merged = replace(IMAGE, trace=PatchTrace(4, ((0, 1, 1, 1),) * 3))

    assert has_colour(draw_patches([PolicyRow("a", POLICY, [IMAGE])]), GONE)
    assert not has_colour(draw_patches([PolicyRow("a", POLICY, [merged])]), GONE)


def test_patches_of_one_token_have_one_colour() -> None:
    halves = np.zeros((16, 64, 3), np.uint8)
    halves[:, 48:] = 255
    encoded = BytesIO()
    Image.fromarray(halves).save(encoded, "JPEG", quality=100)
    mixed = replace(IMAGE, jpeg=encoded.getvalue(), trace=PatchTrace(4, ((0, 1, 2, 2),) * 3))

    drawn = np.asarray(draw_patches([PolicyRow("a", POLICY, [mixed])]))

    grey = (np.abs(drawn.astype(int) - 127) <= 6).all(axis=-1)
    assert grey.sum() > 1000  # black and white, as the mean of both


def test_two_policies_have_the_same_blocks_under_one_another() -> None:
    other = replace(IMAGE, trace=PatchTrace(4, ((0, 1, 2, 3), (0, 1, 2, 3), (0, 0, 1, 2))))
    alone = draw_patches([PolicyRow("a", POLICY, [IMAGE])])

    both = draw_patches([PolicyRow("a", POLICY, [IMAGE]), PolicyRow("b", POLICY, [other])])

    assert both.height > alone.height
    assert both.width > alone.width or alone.width == both.width
    assert not has_colour(draw_patches([PolicyRow("b", POLICY, [other])]), GOING)


def test_a_picture_says_in_words_what_it_shows() -> None:
    assert describe_patches(IMAGE) == (
        "cat.jpg: behind block 1, 2 tokens hold 3 of 4 patches; the others were dropped"
    )
    kept = replace(IMAGE, trace=PatchTrace(4, ((0, 1, 2, 3),)))
    assert describe_patches(kept) == "cat.jpg: all 4 patches are kept to the end"


def test_traces_are_read_as_they_were_written(tmp_path: Path) -> None:
    traces = PatchTraces("sha256:0", (IMAGE,))

    write_traces(traces, tmp_path / "patches.json")

    assert read_traces(tmp_path / "patches.json") == traces


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("columns", 3, "the patches of image 'cat.jpg' form no grid"),
        ("columns", 0, "images[0].columns is 0; it must be an integer from 1 to 1048576"),
        ("jpeg", "%", "image 'cat.jpg' is no base64"),
        ("tokens", [[0, 1, 2, -2]], "images[0].tokens[0][3] is -2; it must be an integer from -1"),
    ],
)
def test_a_damaged_trace_is_one_sentence(
    tmp_path: Path, field: str, value: object, sentence: str
) -> None:
    path = tmp_path / "patches.json"
    write_traces(PatchTraces("sha256:0", (IMAGE,)), path)
    document = json.loads(path.read_text(encoding="utf-8"))
    document["images"][0][field] = value
    path.write_text(json.dumps(document), encoding="utf-8")

    with pytest.raises(RunError) as caught:
        read_traces(path)
    assert str(caught.value).startswith(sentence)


def test_what_is_no_jpeg_is_said(tmp_path: Path) -> None:
    broken = replace(IMAGE, jpeg=b"nothing")

    with pytest.raises(RunError, match=r"^image 'cat.jpg' is no JPEG$"):
        draw_patches([PolicyRow("a", POLICY, [broken])])
    with pytest.raises(RunError, match=r"must end in \.png, \.webp, \.jpg, \.jpeg$"):
        save_patches(draw_patches([PolicyRow("a", POLICY, [IMAGE])]), tmp_path / "a.txt")


def test_the_report_of_a_run_shows_its_images(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    write_traces(demo_traces(), folder.patches)

    page = write_report(folder).read_text(encoding="utf-8")

    (attrs,) = [attrs for tag, attrs in Reader(page).tags if tag == "img"]
    kind, _, data = str(attrs["src"]).partition(",")
    assert kind == "data:image/webp;base64"
    assert base64.b64decode(data) == (tmp_path / "patches.webp").read_bytes()
    words = "image 1: behind block 2, 98 tokens hold 98 of 196 patches; the others were dropped"
    assert attrs["alt"] == f"{words}."
    assert words in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert len(page) < LARGEST


def test_images_of_another_answer_are_not_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    write_traces(replace(demo_traces(), schedule_hash="sha256:other"), folder.patches)

    page = write_report(folder).read_text(encoding="utf-8")

    assert run_document().finished.answer_hash != "sha256:other"
    assert not [tag for tag, _ in Reader(page).tags if tag == "img"]
