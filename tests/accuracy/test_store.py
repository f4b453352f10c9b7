import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from tokensearch.accuracy.results import ImageResults
from tokensearch.accuracy.store import Key, PredictionStore, default_store_path
from tokensearch.errors import TokensearchWarning

KEY = Key("sha256:m", "sha256:s", "float32", "cpu")


def results(images: int, seed: int = 0) -> ImageResults:
    torch.manual_seed(seed)
    whole = [torch.randint(0, 1000, (images,)) for _ in range(3)]
    return ImageResults(*whole, *(torch.rand(images, dtype=torch.float64) for _ in range(2)))


def names(images: int, first: int = 0) -> list[str]:
    return [f"image {number}" for number in range(first, first + images)]


def same(one: ImageResults | None, other: ImageResults) -> bool:
    return one is not None and all(
        torch.equal(getattr(one, item.name), getattr(other, item.name))
        for item in fields(ImageResults)
    )


def test_results_come_back_to_the_bit_in_another_process(tmp_path: Path) -> None:
    first, second = results(32), results(7, seed=1)
    PredictionStore(tmp_path / "deep" / "answers.db").put(KEY, names(32), first)
    PredictionStore(tmp_path / "deep" / "answers.db").put(KEY, names(7, 32), second)

    later = PredictionStore(tmp_path / "deep" / "answers.db")

    assert same(later.get(KEY, names(32)), first)
    assert same(later.get(KEY, names(7, 32)), second)


@pytest.mark.parametrize("field", ["model", "schedule", "dtype", "device"])
def test_results_of_anything_else_are_not_found(tmp_path: Path, field: str) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    store.put(KEY, names(4), results(4))

    assert store.get(replace(KEY, **{field: "other"}), names(4)) is None


def test_results_of_fewer_images_are_not_taken_for_all(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    store.put(KEY, names(4), results(4))

    assert store.get(KEY, names(5)) is None


def test_other_splits_of_the_same_images_find_their_results(tmp_path: Path) -> None:
    store, whole = PredictionStore(tmp_path / "answers.db"), results(32)
    store.put(KEY, names(32), whole)

    found = store.get(KEY, ["image 30", "image 2", "image 30"])

    assert found is not None
    assert found.predicted.tolist() == whole.predicted[[30, 2, 30]].tolist()


def test_what_is_forgotten_is_asked_again_and_nothing_else_is(tmp_path: Path) -> None:
    store, other = PredictionStore(tmp_path / "answers.db"), replace(KEY, schedule="sha256:other")
    for key in (KEY, other):
        store.put(key, names(4), results(4))

    store.forget(KEY)

    assert store.get(KEY, names(4)) is None
    assert store.get(other, names(4)) is not None


def test_a_store_without_a_place_keeps_nothing() -> None:
    store = PredictionStore(None)
    store.put(KEY, names(4), results(4))

    assert store.get(KEY, names(4)) is None
    assert not store.keeps


def test_of_a_store_that_has_grown_large_the_older_half_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.db"
    for first in range(0, 320, 32):
        PredictionStore(path).put(KEY, names(32, first), results(32, seed=first))
    large = path.stat().st_size
    monkeypatch.setattr("tokensearch.accuracy.store.MOST_BYTES", large - 1)

    store = PredictionStore(path)

    kept = [store.get(KEY, names(32, first)) is not None for first in range(0, 320, 32)]
    assert kept == [False] * 5 + [True] * 5
    assert path.stat().st_size < large


def test_a_damaged_store_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"no database at all" * 100)

    with pytest.warns(TokensearchWarning, match="predictions are not stored for later runs"):
        store = PredictionStore(path)
    store.put(KEY, names(4), results(4))

    assert store.get(KEY, names(4)) is None
    assert path.read_bytes() == b"no database at all" * 100


def test_a_store_that_goes_away_is_no_reason_to_fail(tmp_path: Path) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    with sqlite3.connect(tmp_path / "answers.db") as base:
        base.execute("DROP TABLE answered")

    with pytest.warns(TokensearchWarning, match="no such table: answered; free space on its disk"):
        store.put(KEY, names(4), results(4))

    for _ in range(2):  # said once, and let alone
        store.put(KEY, names(4), results(4))
        assert store.get(KEY, names(4)) is None


def test_a_full_disk_is_said_once_and_what_is_kept_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, connect = tmp_path / "answers.db", sqlite3.connect
    store = PredictionStore(path)
    store.put(KEY, names(4), results(4))

    def full(*args: object, **options: object) -> sqlite3.Connection:
        base = connect(*args, **options)  # type: ignore[call-overload]
        base.execute("PRAGMA max_page_count = 1")  # as many as there are
        return base  # type: ignore[no-any-return]

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", full)
        with pytest.warns(TokensearchWarning, match="database or disk is full"):
            store.put(KEY, names(999, 32), results(999))
        store.put(KEY, names(999, 32), results(999))  # warns no more, which would be an error here

    assert same(PredictionStore(path).get(KEY, names(4)), results(4))


def test_the_place_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKENSEARCH_CACHE", str(tmp_path))

    assert default_store_path() == tmp_path / "answers.db"
