import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from tokensearch.data.folder import folder_splits
from tokensearch.data.sources import splits_from
from tokensearch.data.splits import PURPOSES, Sizes, Splits
from tokensearch.errors import DataError

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

    assert refusal(tmp_path) == f"folder {tmp_path} holds no images"


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
