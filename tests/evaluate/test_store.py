import sqlite3
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from tokensearch.evaluate import Answers
from tokensearch.evaluate.store import AnswerStore, Key, usual_store

KEY = Key("sha256:w", "sha256:s", "sha256:i", "float32")


def answers(images: int, seed: int = 0) -> Answers:
    torch.manual_seed(seed)
    whole = [torch.randint(0, 1000, (images,)) for _ in range(3)]
    return Answers(*whole, *(torch.rand(images, dtype=torch.float64) for _ in range(2)))


def same(one: Answers | None, other: Answers) -> bool:
    return one is not None and all(
        torch.equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(Answers)
    )


def test_answers_come_back_to_the_bit_in_another_process(tmp_path: Path) -> None:
    first, second = answers(32), answers(7, seed=1)
    AnswerStore(tmp_path / "deep" / "answers.db").put(KEY, 0, first)
    AnswerStore(tmp_path / "deep" / "answers.db").put(KEY, 32, second)

    later = AnswerStore(tmp_path / "deep" / "answers.db")

    assert same(later.get(KEY, 0, 32), first)
    assert same(later.get(KEY, 32, 7), second)


@pytest.mark.parametrize("field", ["weights", "schedule", "images", "dtype"])
def test_answers_of_anything_else_are_not_found(tmp_path: Path, field: str) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    store.put(KEY, 0, answers(4))

    assert store.get(replace(KEY, **{field: "other"}), 0, 4) is None


def test_answers_to_fewer_images_are_not_taken_for_all(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    store.put(KEY, 0, answers(4))

    assert store.get(KEY, 0, 5) is None


def test_a_store_without_a_place_keeps_nothing() -> None:
    store = AnswerStore(None)
    store.put(KEY, 0, answers(4))

    assert store.get(KEY, 0, 4) is None
    assert not store.keeps


def test_of_a_store_that_has_grown_large_the_older_half_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.db"
    for first in range(0, 320, 32):
        AnswerStore(path).put(KEY, first, answers(32, seed=first))
    large = path.stat().st_size
    monkeypatch.setattr("tokensearch.evaluate.store.MOST_BYTES", large - 1)

    store = AnswerStore(path)

    kept = [store.get(KEY, first, 32) is not None for first in range(0, 320, 32)]
    assert kept == [False] * 5 + [True] * 5
    assert path.stat().st_size < large


def test_a_damaged_store_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"no database at all" * 100)

    store = AnswerStore(path)
    store.put(KEY, 0, answers(4))

    assert store.get(KEY, 0, 4) is None
    assert path.read_bytes() == b"no database at all" * 100


def test_a_store_that_goes_away_is_no_reason_to_fail(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path / "answers.db")
    with sqlite3.connect(tmp_path / "answers.db") as base:
        base.execute("DROP TABLE answers")

    store.put(KEY, 0, answers(4))

    assert store.get(KEY, 0, 4) is None


def test_the_place_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOKENSEARCH_CACHE", str(tmp_path))

    assert usual_store() == tmp_path / "answers.db"
