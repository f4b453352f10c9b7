import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from tokensearch.data.folder import divide_samples, folder_splits, scan_folder
from tokensearch.data.images import read_image
from tokensearch.data.sources import splits_from
from tokensearch.data.splits import PURPOSES, Sizes, Splits
from tokensearch.errors import DataError, TokensearchWarning

CONFIG: dict[str, Any] = {
    "input_size": (3, 16, 16),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
}
SIZES = Sizes(search=6, select=3, report=9)


def fill(folder: Path, *, classes: tuple[str, ...] = ("n10", "n2", "n3"), each: int = 8) -> Path:
    """Write images of one colour, which names class and place."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            colour = (10 * label, 10 * i, 200)
            Image.new("RGB", (24, 20), colour).save(folder / name / f"{i}.png")
    return folder


def splits(folder: Path, *, sizes: Sizes = SIZES, seed: int = 0, **more: Any) -> Splits:
    return folder_splits(folder, data_config=CONFIG, sizes=sizes, seed=seed, **more)


def colours(made: Splits) -> dict[str, list[tuple[float, ...]]]:
    return {
        purpose: [tuple(made.of(purpose).dataset[i][0][:, 8, 8].tolist()) for i in range(count)]
        for purpose, count in ((p, len(made.of(p))) for p in PURPOSES)
    }


def refusal(folder: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        splits(folder, **more)
    return str(caught.value)


def test_splits_share_no_image(tmp_path: Path) -> None:
    seen = [colour for part in colours(splits(fill(tmp_path / "a"))).values() for colour in part]

    assert len(seen) == len(set(seen)) == 18


def test_every_split_holds_every_class_alike(tmp_path: Path) -> None:
    made = splits(fill(tmp_path / "a"))

    for purpose in PURPOSES:
        _, labels = next(made.of(purpose).batches(99))
        assert labels.bincount().tolist() == [SIZES.of(purpose) // 3] * 3


def test_classes_are_numbered_in_natural_order(tmp_path: Path) -> None:
    made = splits(fill(tmp_path / "a", classes=("n10", "n2"), each=9))

    images, labels = next(made.report.batches(99))
    red = (images[:, 0, 8, 8] * 0.229 + 0.485) * 255

    # Class n10 was painted with red 0 and sorts after n2, which has red 10.
    assert torch.equal((red < 5).long(), labels)


def test_images_are_prepared_exactly_as_timm_does(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(noise).save(tmp_path / name / f"{i}.png")

    image, _ = splits(tmp_path, sizes=Sizes(1, 1, 1)).search.dataset[0]

    expected = create_transform(**CONFIG, is_training=False)(Image.fromarray(noise))
    assert torch.equal(image, expected)


def test_equal_seeds_give_equal_splits(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")

    assert colours(splits(folder, seed=1)) == colours(splits(folder, seed=1))
    assert colours(splits(folder, seed=1)) != colours(splits(folder, seed=2))


def test_a_digest_names_the_images_and_not_where_they_lie(tmp_path: Path) -> None:
    here, there = fill(tmp_path / "here"), fill(tmp_path / "there")

    digest = splits(here).search.digest

    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert digest == splits(there).search.digest
    assert len({splits(here).of(purpose).digest for purpose in PURPOSES}) == 3


def test_a_digest_notices_another_seed_and_a_changed_file(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    all_of_them = Sizes(22, 1, 1)
    before = splits(folder, sizes=all_of_them).search.digest

    assert splits(folder, sizes=all_of_them, seed=1).search.digest != before

    for file in folder.rglob("*.png"):
        Image.new("RGB", (64, 64)).save(file)
    assert splits(folder, sizes=all_of_them).search.digest != before


def test_a_validation_sub_folder_is_taken(tmp_path: Path) -> None:
    fill(tmp_path / "val")
    fill(tmp_path / "train", classes=("other",))

    made = splits(tmp_path)

    assert sorted({int(y) for _, labels in made.report.batches(99) for y in labels}) == [0, 1, 2]


def test_a_class_map_gives_the_model_s_own_numbers(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", classes=("cat", "dog"), each=10)
    names = tmp_path / "classes.txt"
    names.write_text("ant\nbee\ncat\ncow\ndog\n")

    made = splits(folder, class_map=names)

    assert sorted({int(y) for _, labels in made.report.batches(99) for y in labels}) == [2, 4]


def test_images_without_class_folders_are_unlabelled(tmp_path: Path) -> None:
    made = splits(fill(tmp_path / "a", classes=("",), each=18))

    assert not made.labelled
    assert [int(y) for _, labels in made.select.batches(99) for y in labels] == [-1, -1, -1]


def test_few_images_make_smaller_splits(tmp_path: Path) -> None:
    made = splits(fill(tmp_path / "a", each=30), sizes=Sizes(100, 50, 200))

    # 20 each, and the 30 left over by 80 : 30 : 180.
    assert [len(made.of(purpose)) for purpose in PURPOSES] == [28, 23, 38]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", each=5)

    assert refusal(folder, sizes=Sizes(100, 100, 100)) == (
        f"folder {folder} holds 15 images; the three splits need at least 60 (20 + 20 + 20)"
    )


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone") == f"folder {tmp_path / 'gone'} does not exist"


def test_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()

    assert refusal(file) == f"{file} is not a folder of images"


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()

    assert refusal(tmp_path).startswith(f"folder {tmp_path} holds no images (.jpg, ")


def test_a_class_map_of_other_classes_is_refused(tmp_path: Path) -> None:
    folder, names = fill(tmp_path / "a"), tmp_path / "classes.txt"
    names.write_text("ant\nbee\n")

    assert refusal(folder, class_map=names) == (
        f"folder {folder} holds no images of the classes in {names}"
    )


def test_a_missing_class_map_is_refused(tmp_path: Path) -> None:
    names = tmp_path / "gone.txt"

    assert refusal(fill(tmp_path / "a"), class_map=names) == f"class map {names} does not exist"


def test_a_class_map_that_would_be_unpickled_is_refused(tmp_path: Path) -> None:
    folder, names = fill(tmp_path / "a"), tmp_path / "classes.pkl"
    names.write_bytes(pickle.dumps({"n2": 0}))

    assert refusal(folder, class_map=names) == (
        f"class map {names} is no .txt file, with one folder name per line"
    )


def test_loose_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "loose.png")

    assert refusal(tmp_path / "a") == (
        f"folder {tmp_path / 'a'} holds 1 images outside its class folders; move them into one"
    )


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", classes=("only",), each=3)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    made = splits(folder, sizes=Sizes(1, 1, 1))

    with pytest.raises(DataError) as caught:
        next(made.search.batches(1))

    assert re.fullmatch(
        rf"image {folder}/only/\d.png cannot be read: it is none of .*",
        str(caught.value),
    )


def test_a_path_is_read_as_a_folder(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")

    made = splits_from(str(folder), data_config=CONFIG, sizes=SIZES, seed=0)

    assert made.name == "folder a"
    assert made.search.digest == splits(folder).search.digest


class NamedSet:
    """Sixty images whose shade is their index, of three classes in turn."""

    targets = tuple(i % 3 for i in range(60))

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (20, 20), index), self.targets[index]


def test_a_named_set_gives_the_same_kind_of_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokensearch.data.sources.create_dataset", lambda *_, **__: NamedSet())

    made = splits_from("torch/some", data_config=CONFIG, sizes=SIZES, seed=0)

    images, labels = next(made.report.batches(99))
    shades = (images[:, 0, 8, 8] * 0.229 + 0.485).mul(255).round().long()
    assert made.name == "data set torch/some"
    assert torch.equal(shades % 3, labels)
    assert labels.bincount().tolist() == [3, 3, 3]


def test_a_named_set_that_cannot_be_opened_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the hub is away.\nmore lines")

    monkeypatch.setattr("tokensearch.data.sources.create_dataset", broken)

    with pytest.raises(DataError) as caught:
        splits_from("hfds/some/name", data_config=CONFIG, sizes=SIZES, seed=0)

    assert str(caught.value) == "data set hfds/some/name cannot be opened: the hub is away"


def test_a_name_with_no_scheme_is_a_folder_that_does_not_exist() -> None:
    with pytest.raises(DataError) as caught:
        splits_from("cifar10", data_config=CONFIG, sizes=SIZES, seed=0)

    assert str(caught.value) == "folder cifar10 does not exist"


def test_a_class_without_images_keeps_its_number_and_is_named(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", each=12, classes=("00", "02"))
    (folder / "01").mkdir()

    with pytest.warns(TokensearchWarning, match="1 folders in .* keep their numbers: 01"):
        made = splits(folder)

    assert set(labels_of(made)) == {0, 2}
    assert made.classes == 3


def test_hidden_folders_are_no_classes_and_named(tmp_path: Path) -> None:
    hidden = (".ipynb_checkpoints", "__MACOSX", "@eaDir")
    folder = fill(tmp_path / "a", each=12, classes=(*hidden, "cat", "dog"))

    with pytest.warns(TokensearchWarning, match="3 folders in .* are hidden and left out"):
        made = splits(folder)

    assert (set(labels_of(made)), made.classes) == ({0, 1}, 2)


def test_folders_that_are_not_in_the_class_map_are_named(tmp_path: Path) -> None:
    folder, names = (
        fill(tmp_path / "a", each=12, classes=("cat", "dog", "elk")),
        tmp_path / "names.txt",
    )
    names.write_text("ant\ncat\ndog\n")

    with pytest.warns(TokensearchWarning, match="not in the class map and left out: elk"):
        made = splits(folder, class_map=names)

    assert (set(labels_of(made)), made.classes) == ({1, 2}, 3)


def test_images_in_folders_within_a_class_are_refused_by_name(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    fill(folder / "n2", classes=("more",))

    said = refusal(folder)

    assert "n2/more holds images within the class folder n2; move them into it" in said


@pytest.mark.parametrize(("classes", "class_map"), [(2, None), (4, None), (2, "a\nn2\nn10\n")])
def test_labels_are_held_against_the_classes_of_the_model(
    tmp_path: Path, classes: int, class_map: str | None
) -> None:
    names = tmp_path / "names.txt"
    names.write_text(class_map or "")
    folder = fill(
        tmp_path / "a", each=12, classes=("n10", "n2") if class_map else ("n10", "n2", "n3")
    )
    made = splits(folder, class_map=names if class_map else None)

    with pytest.raises(
        DataError, match=rf"images \(folder a\) have 3 classes and model m has {classes};"
    ):
        made.check_classes("m", classes)


def test_a_class_map_may_name_a_part_of_the_classes_of_the_model(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a\nn2\nn3\nn10\n")

    splits(fill(tmp_path / "a"), class_map=names).check_classes("m", 1000)


def test_images_of_every_format_count(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a")
    for suffix in ("webp", "bmp", "gif", "tif", "JPG", "jpeg"):
        Image.new("RGB", (24, 20), (9, 9, 9)).save(folder / "n2" / f"other.{suffix}")

    made = splits(folder, sizes=Sizes(10, 10, 10))

    assert sum(len(made.of(purpose)) for purpose in PURPOSES) == 30


def labels_of(made: Splits) -> list[int]:
    return [y for p in PURPOSES for y in made.of(p).part(0, len(made.of(p)))[1].tolist()]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_of_16_bits_keep_their_brightness(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"deep.{suffix}"
    Image.fromarray(np.array([[0, 2**15], [2**14, 2**16 - 1]], dtype=np.uint16)).save(file)

    assert np.asarray(read_image(file))[..., 0].tolist() == [[0, 128], [64, 255]]


def test_a_picture_of_floating_point_values_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "float.tif"
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(file)

    with pytest.raises(DataError, match="floating-point values, of no known range"):
        read_image(file)


def who_goes_where(folder: Path, sizes: Sizes) -> dict[str, str]:
    """The split of each image of a folder that is in one, by its name within the folder."""
    scanned = scan_folder(folder, None)
    parts = divide_samples(scanned, sizes, seed=0, directory=folder)
    names = [str(path.relative_to(folder)) for path, _ in scanned.samples]
    return {names[index]: purpose for purpose in PURPOSES for index in parts[purpose]}


def listed(folder: Path, classes: int, each: int) -> Path:
    """A folder of files that nobody opens: flat for one class."""
    for number in range(classes):
        inner = folder if classes == 1 else folder / f"{number:02d}"
        inner.mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (inner / f"{index}.png").touch()
    return folder


# With images to spare, and with all that there are; a split's end moves by one image of each of
# two classes at most.
@pytest.mark.parametrize(("classes", "each"), [(1, 400), (1, 150), (10, 40), (7, 30)])
def test_a_file_more_or_less_moves_no_image_but_those_at_the_ends_of_splits(
    tmp_path: Path, classes: int, each: int
) -> None:
    folder, sizes, ends = listed(tmp_path / "images", classes, each), Sizes(40, 40, 120), 2
    before = who_goes_where(folder, sizes)
    files = sorted(folder.rglob("*.png"))

    for file in files[:: len(files) // 20]:
        file.unlink()
        after = who_goes_where(folder, sizes)
        moved = [name for name in before.keys() & after.keys() if before[name] != after[name]]
        assert len(moved) <= ends * min(classes, 2), moved
        assert {before[name] for name in moved} <= {"search", "select", "report"}
        assert not any({before[name], after[name]} == {"search", "report"} for name in moved)
        file.touch()
        assert who_goes_where(folder, sizes) == before  # and it was a file more than `after`


@pytest.mark.parametrize("classes", [1, 5])
def test_a_folder_that_is_renamed_or_moved_keeps_its_splits(tmp_path: Path, classes: int) -> None:
    folder = listed(tmp_path / "images", classes, 60)
    before = who_goes_where(folder, Sizes(20, 20, 30))

    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "pictures")

    assert who_goes_where(moved, Sizes(20, 20, 30)) == before
