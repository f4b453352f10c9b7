"""A file is whole or as it was; what refuses it is said in a sentence."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.report.fixtures import trials
from tokensearch.errors import RunError
from tokensearch.files import refuse_unwritable, write_whole
from tokensearch.records.run_folder import RunFolder

FULL = "no space is left on the disk that holds {}; free some and give the same command again"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the system refuse what makes a file larger; Python ignores the signal of it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("folder", ["/proc/new", "new"])
def test_a_place_that_takes_no_files_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir("/proc")

    with pytest.raises(RunError) as raised:
        refuse_unwritable(Path(folder), "it")

    assert str(raised.value) == "it cannot be written: No such file or directory"


def test_a_place_that_takes_files_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    refuse_unwritable(tmp_path / "new" / "folder", "it")
    with pytest.raises(RunError, match=r"it cannot be written: .*file is a file"):
        refuse_unwritable(tmp_path / "file" / "folder", "it")

    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_the_system_cuts_short_leaves_the_old_one_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "front.json"
    write_whole(path, "old")

    with largest_file(1000), pytest.raises(RunError) as raised:
        write_whole(path, "new" * 1000)

    assert str(raised.value) == f"{path} cannot be written: File too large"
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"front.json": "old"}


def test_a_trial_that_the_system_cuts_short_is_cut_off_and_written_again(tmp_path: Path) -> None:
    folder, (first, second, *_) = RunFolder(tmp_path), trials()
    folder.append_trial(first)
    limit = folder.trials.stat().st_size + 40

    with largest_file(limit), pytest.raises(RunError, match=r"trials\.jsonl cannot be written"):
        folder.append_trial(second)
    assert folder.trials.stat().st_size == limit  # it is torn
    folder.mend_trials()
    folder.append_trial(second)

    assert [trial.number for trial in folder.read_trials()] == [0, 1]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EROFS, "{} cannot be written: Read-only file system"),
        (errno.EACCES, "{} cannot be written: Permission denied"),
    ],
)
@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_every_refusal_at_every_step_is_one_sentence(
    tmp_path: Path, *, step: str, number: int, said: str
) -> None:
    path = tmp_path / "front.json"
    write_whole(path, "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, step, refuse)
        with pytest.raises(RunError) as raised:
            write_whole(path, "new")

    assert str(raised.value) == said.format(path)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"front.json": "old"}


def test_two_processes_that_write_one_file_have_parts_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, parts = tmp_path / "front.json", list[str]()
    replace = os.replace

    def seen(part: str, whole: str) -> None:
        parts.append(str(part))
        replace(part, whole)

    monkeypatch.setattr(os, "replace", seen)
    for text in ("one", "two"):
        write_whole(path, text)

    assert len(set(parts)) == 2
    assert path.read_text() == "two"
