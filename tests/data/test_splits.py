from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokensearch.data.fair import LEAST_IMAGES, choose_evenly, shrink_sizes
from tokensearch.data.pixels import Pixels, Preprocessing, digest
from tokensearch.data.splits import PURPOSES, Purpose, Sizes, Split
from tokensearch.errors import DataError

CONFIG: dict[str, Any] = {
    "input_size": (3, 8, 8),
    "mean": (0.5, 0.25, 0.0),
    "std": (0.5, 0.25, 1.0),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "crop_mode": "center",
}


def read_own_index(index: int) -> tuple[Tensor, int]:
    """Image `i` holds the value i everywhere, and its label is 10 i."""
    return torch.full((3, 8, 8), index, dtype=torch.uint8), 10 * index


def split_of(count: int) -> Split:
    images = Pixels(read_own_index, count, Preprocessing.of(CONFIG))
    return Split("search", images, "sha256:0", labelled=True)


def test_batches_keep_the_order_and_the_last_may_be_smaller() -> None:
    batches = list(split_of(5).batches(2))

    assert [labels.tolist() for _, labels in batches] == [[0, 10], [20, 30], [40]]
    assert [tuple(images.shape) for images, _ in batches] == [(2, 3, 8, 8)] * 2 + [(1, 3, 8, 8)]


@pytest.mark.parametrize(("limit", "seen"), [(None, 5), (0, 0), (3, 3), (9, 5)])
def test_a_limit_takes_the_first_images(limit: int | None, seen: int) -> None:
    labels = [int(y) for _, batch in split_of(5).batches(2, limit=limit) for y in batch]

    assert labels == [0, 10, 20, 30, 40][:seen]


def test_a_split_is_as_long_as_its_images() -> None:
    assert len(split_of(5)) == 5


def test_bytes_are_normalised_per_channel() -> None:
    image, _ = split_of(256).dataset[255]

    assert image.dtype == torch.float32
    assert image[:, 0, 0].tolist() == [1.0, 3.0, 1.0]


def test_an_image_is_read_once() -> None:
    reads: list[int] = []

    def read(index: int) -> tuple[Tensor, int]:
        reads.append(index)
        return read_own_index(index)

    images = Pixels(read, 3, Preprocessing.of(CONFIG))

    first, again = images[1][0], images[1][0]

    assert reads == [1]
    assert torch.equal(first, again)


def test_images_too_many_to_keep_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokensearch.data.pixels.KEPT_BYTES", 3 * 3 * 8 * 8 - 1)
    reads: list[int] = []

    def read(index: int) -> tuple[Tensor, int]:
        reads.append(index)
        return read_own_index(index)

    images = Pixels(read, 3, Preprocessing.of(CONFIG))

    assert torch.equal(images[1][0], images[1][0])
    assert reads == [1, 1]


def test_an_index_past_the_end_ends_iteration() -> None:
    with pytest.raises(IndexError):
        split_of(5).dataset[5]


def test_a_model_that_takes_oblong_images_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Preprocessing.of(CONFIG | {"input_size": (1, 8, 16)})

    assert str(caught.value) == (
        "the model takes images of 1 x 8 x 16; only RGB images are supported"
    )


def test_a_digest_depends_on_the_preparation() -> None:
    plain = Preprocessing.of(CONFIG)
    tighter = Preprocessing.of(CONFIG | {"crop_pct": 0.8})

    assert digest("images", plain) == digest("images", plain)
    assert len({digest("images", plain), digest("images", tighter), digest("other", plain)}) == 3


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Sizes(search=10, select=0, report=10)

    assert str(caught.value) == "the select split asks for 0 images; it needs at least 1"


def test_enough_images_leave_the_sizes_alone() -> None:
    assert shrink_sizes(Sizes(30, 20, 50), 100, where="here") == Sizes(30, 20, 50)


def test_too_few_images_shrink_the_splits_in_proportion_beyond_the_least() -> None:
    assert shrink_sizes(Sizes(120, 70, 220), 235, where="here") == Sizes(70, 45, 120)


def test_the_least_is_served_first() -> None:
    assert shrink_sizes(Sizes(500, 500, 20), 70, where="here") == Sizes(25, 25, 20)


def test_fewer_than_the_least_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        shrink_sizes(Sizes(500, 500, 1000), 59, where="folder pictures")

    assert str(caught.value) == (
        "folder pictures holds 59 images; the three splits need at least 60 (20 + 20 + 20)"
    )


@given(sizes=st.tuples(*[st.integers(1, 400)] * 3), found=st.integers(60, 1300))
def test_shrunk_splits_fit_and_keep_their_least(sizes: tuple[int, int, int], found: int) -> None:
    asked = Sizes(*sizes)

    given_ = shrink_sizes(asked, found, where="here")

    assert given_.total <= max(found, 60)
    for purpose in PURPOSES:
        least = min(asked.of(purpose), LEAST_IMAGES)
        assert least <= given_.of(purpose) <= asked.of(purpose)
    # What rounding leaves unused is less than one image per split.
    assert given_.total >= min(asked.total, found) - 2


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shares=st.tuples(*[st.integers(1, 10)] * 3),
    seed=st.integers(0, 99),
)
def test_parts_are_disjoint_and_hold_each_class_by_its_share(
    counts: list[int], shares: tuple[int, int, int], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    total = len(labels) + 3  # so that every size is at least 1 of a pool padded with class 0
    labels = np.concatenate([labels, [0, 0, 0]])
    sizes = Sizes(*(max(1, total * share // (sum(shares) + 3)) for share in shares))

    parts = choose_evenly(labels.tolist(), sizes, seed=seed)

    taken = [i for purpose in PURPOSES for i in parts[purpose]]
    assert len(taken) == len(set(taken)) == sizes.total
    for purpose in PURPOSES:
        for label in range(len(counts)):
            fair = sizes.of(purpose) * (labels == label).sum() / total
            got = sum(labels[i] == label for i in parts[purpose])
            # Each class is within one of its share of a stretch of the line; the stretch itself is
            # cut by images, not by length, which the other classes may shift by as much again.
            assert abs(got - fair) <= len(counts) + 1


def test_balanced_classes_stay_balanced_even_in_a_prefix() -> None:
    labels = [i // 30 for i in range(90)]

    parts = choose_evenly(labels, Sizes(30, 15, 45), seed=0)

    for part in parts.values():
        for length in range(3, len(part) + 1, 3):
            counts = [sum(labels[i] == label for i in part[:length]) for label in range(3)]
            assert counts == [length // 3] * 3


def places(names: list[str], labels: list[int]) -> dict[str, Purpose]:
    """The split that each image goes to."""
    parts = choose_evenly(labels, Sizes(60, 60, 120), seed=0, names=names)
    return {names[index]: purpose for purpose in PURPOSES for index in parts[purpose]}


def test_an_image_that_goes_leaves_the_others_where_they_are_but_at_the_ends_of_splits() -> None:
    names = [f"class{number % 5}/{number}.jpg" for number in range(400)]
    labels = [number % 5 for number in range(400)]
    before = places(names, labels)

    for gone in range(0, 400, 37):
        after = places(names[:gone] + names[gone + 1 :], labels[:gone] + labels[gone + 1 :])
        others = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        assert len(others - {names[gone]}) <= 3 * 2  # of its class and another, at three ends


def test_the_order_in_which_images_are_listed_does_not_matter() -> None:
    names, labels = [f"{number}.jpg" for number in range(400)], [n % 3 for n in range(400)]

    assert places(names, labels) == places(names[::-1], labels[::-1])


def test_a_seed_decides_the_choice() -> None:
    labels, sizes = [0] * 50 + [1] * 50, Sizes(20, 20, 20)

    assert choose_evenly(labels, sizes, seed=1) == choose_evenly(labels, sizes, seed=1)
    assert choose_evenly(labels, sizes, seed=1) != choose_evenly(labels, sizes, seed=2)
