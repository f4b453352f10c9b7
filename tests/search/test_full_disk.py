"""A disk that is full at any stage, and a damaged study: one sentence, and the run goes on."""

import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.search.tiny import by_macs, session
from tokensearch.errors import RunError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import load, load_set
from tokensearch.records.run_folder import RunFolder

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
TRIALS = 4


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())


@contextmanager
def full_after(writes: int) -> Iterator[None]:
    """Have the disk take `writes` steps of writing and no more; a file is cut short by that."""
    made = count(1)

    def failing(step: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*args: Any, **options: Any) -> Any:
            reads = step is os_open and not args[1] & (os.O_WRONLY | os.O_RDWR)
            if reads or next(made) <= writes:
                return step(*args, **options)
            if step is os_fsync and (size := os.fstat(args[0]).st_size):
                os.ftruncate(args[0], size - 1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return tried

    os_open, os_fsync = os.open, os.fsync
    with pytest.MonkeyPatch.context() as patch:
        for name in ("open", "fsync", "replace", "mkdir"):
            patch.setattr(os, name, failing(getattr(os, name)))
        yield


def ends_with(folder: RunFolder, writes: int) -> bool:
    """Run until the disk is full; whether the run came to its end before that."""
    try:
        with full_after(writes):
            session(folder.path, trials=TRIALS, target="0.6x").run()
    except RunError as error:
        said = str(error)
        assert said.startswith("no space is left on the disk that holds ")
        assert said.endswith("; free some and give the same command again")
        return False
    return True


def check_whole(folder: RunFolder) -> None:
    """Every file that is there can be read, and no part of one is left."""
    for path in folder.path.rglob("*.json"):
        json.loads(path.read_text())
    assert [path.name for path in folder.path.rglob("*.part")] == []


def check_ended(folder: RunFolder) -> None:
    trials = folder.read_trials()
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert len({trial.schedule_hash for trial in trials}) == TRIALS
    assert folder.require_run().result is not None
    members = load_set(folder.front).policies
    assert [load(path) for path in folder.members()] == list(members)


def test_a_run_whose_disk_is_full_again_and_again_comes_to_its_end(tmp_path: Path) -> None:
    folder, lines = RunFolder(tmp_path / "run"), b""
    for writes in count(0, 7):
        if ends_with(folder, writes):
            break
        check_whole(folder)
        if folder.trials.exists():
            kept = folder.trials.read_bytes()
            assert kept.startswith(lines)
            lines = kept[: kept.rfind(b"\n") + 1]

    assert writes > 30  # what a run that only has to finish writes
    check_ended(folder)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_of_a_run_loses_nothing(tmp_path: Path) -> None:
    for writes in count():
        folder = RunFolder(tmp_path / str(writes))
        if ends_with(folder, writes):
            break
        check_whole(folder)
        session(folder.path, trials=TRIALS, target="0.6x").run()
        check_ended(folder)

    assert writes > 50


@contextmanager
def room_for(pages: int) -> Iterator[None]:
    """Have a study grow to `pages` and no further, but not less than it has."""

    def full(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", full)
    try:
        yield
    finally:
        event.remove(Engine, "connect", full)


def full(study: Path) -> str:
    return (
        f"no space is left on the disk that holds {study}; free some and give the same command "
        f"again"
    )


@pytest.mark.parametrize("pages", [3, 12, 21])
def test_a_study_that_cannot_be_made_whole_is_not_there(tmp_path: Path, pages: int) -> None:
    folder = RunFolder(tmp_path / "run")

    with room_for(pages), pytest.raises(RunError) as raised:
        session(folder.path, trials=2, target="0.6x").run()

    assert str(raised.value) == full(folder.study)
    assert [path.name for path in folder.path.iterdir() if "study" in path.name] == []


def test_a_study_that_cannot_grow_is_a_full_disk_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    session(folder.path, trials=2, target="0.6x").run()

    with room_for(1), pytest.raises(RunError) as raised:
        session(folder.path, trials=60, target="0.6x").run()

    assert str(raised.value) == full(folder.study)
    before = folder.read_trials()
    session(folder.path, trials=len(before) + 2, target="0.6x").run()
    assert folder.read_trials()[: len(before)] == before


def cut(study: Path) -> None:
    os.truncate(study, study.stat().st_size // 2)


def overwrite(study: Path) -> None:
    study.write_bytes(b"no database at all" * 1000)


def replace_by_another(study: Path) -> None:
    study.unlink()
    with sqlite3.connect(study) as base:
        base.execute("CREATE TABLE studies (name TEXT)")
    base.close()


@pytest.mark.parametrize(
    "damage",
    [cut, *(pytest.param(d, marks=pytest.mark.slow) for d in (overwrite, replace_by_another))],
)
def test_a_damaged_study_says_that_it_can_be_deleted_and_it_can(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = RunFolder(tmp_path / "run")
    session(folder.path, trials=TRIALS, target="0.6x").run()
    before = folder.read_trials()
    damage(folder.study)

    with pytest.raises(RunError) as raised:
        session(folder.path, trials=TRIALS + 2, target="0.6x").run()

    said = str(raised.value)
    assert said.startswith(f"{folder.study} cannot be read as an Optuna study (")
    assert "; delete it and give the same command again: it is made anew from " in said
    folder.study.unlink()
    session(folder.path, trials=TRIALS + 2, target="0.6x").run()
    assert folder.read_trials()[:TRIALS] == before
    assert len(folder.read_trials()) == TRIALS + 2


def test_a_search_that_goes_on_says_whose_report_is_there_until_it_ends(tmp_path: Path) -> None:
    session(tmp_path, trials=2).run()

    longer = session(tmp_path, trials=3)
    longer.run()

    assert (
        f"until this search has ended, front, policy and report in {tmp_path} are those of the "
        f"search before"
    ) in longer.listener.notes  # type: ignore[attr-defined]
