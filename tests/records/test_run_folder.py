"""A run folder keeps to itself: nothing outside is opened, changed or deleted through it."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.report.fixtures import run_document, trials
from tokensearch.cli.main import app
from tokensearch.errors import RunError
from tokensearch.policy import Evidence, ModelSpec, Policy, Prune
from tokensearch.records.run_folder import FILES, FOLDERS, IN_PLACE, RunFolder
from tokensearch.search.finalists.result import write_front

INSIDE = ("policies/00.json", "profiles/answer.json", "profiles/tensorboard", "profiles/a/b.json")
NAMES = (*FILES, *FOLDERS, *INSIDE)
UNFINISHED = replace(run_document(), result=None)
MODEL = ModelSpec("tiny", blocks=4, patch_tokens=16, prefix_tokens=1, width=24)
SEEN = Evidence({"batch": 1}, {"median_ms": 1.0}, {"top1": 0.5}, {"median_ms": 2.0}, confirmed=True)


def to_file(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "precious.json")


def to_folder(place: Path, outside: Path) -> None:
    place.symlink_to(outside, target_is_directory=True)


def dangling(place: Path, outside: Path) -> None:
    place.symlink_to(outside / "nothing")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious.json").write_text("precious")
    return folder


def linked(run: Path, name: str, link: Callable[[Path, Path], None], outside: Path) -> Path:
    place = run / name
    place.parent.mkdir(parents=True, exist_ok=True)
    link(place, outside)
    return place


def is_untouched(outside: Path) -> bool:
    return {path.name: path.read_text() for path in outside.iterdir()} == {
        "precious.json": "precious"
    }


@pytest.mark.parametrize("link", [to_file, to_folder, dangling])
@pytest.mark.parametrize("name", NAMES)
def test_a_link_is_refused_by_name_and_what_it_leads_to_stays(
    tmp_path: Path, outside: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    folder = RunFolder(tmp_path / "run")
    place = linked(folder.path, name, link, outside)

    for use in (folder.check, folder.create, folder.read_run):
        with pytest.raises(RunError, match="is a link, which may lead out of its folder") as raised:
            use()
        assert str(raised.value).startswith(f"{place} is a link")

    assert place.is_symlink()
    assert is_untouched(outside)


@pytest.mark.parametrize("verb", [("run", "--out"), ("report",), ("retarget",)])
@pytest.mark.parametrize("name", [".lock", ".probe", "trials.jsonl", "study.db", "policies"])
def test_every_command_refuses_a_run_folder_with_a_link(
    tmp_path: Path, outside: Path, name: str, verb: tuple[str, ...]
) -> None:
    place = linked(tmp_path / "run", name, to_folder, outside)
    more = ("--latency-target", "0.5x") if verb[0] == "retarget" else ()

    result = CliRunner().invoke(app, [*verb, str(tmp_path / "run"), *more])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {place} is a link, which may lead out of its folder; ")
    assert len(result.stderr.splitlines()) == 1
    assert is_untouched(outside)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large disk")
    folder = RunFolder(tmp_path / "run")

    folder.create()
    folder.write_run(UNFINISHED)

    assert (tmp_path / "large disk" / "run.json").is_file()


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_second_name_of_what_is_changed_in_place_is_refused(
    tmp_path: Path, outside: Path, name: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.write_run(UNFINISHED)
    os.link(outside / "precious.json", folder.path / name)

    with pytest.raises(RunError, match=f"{name} is a hard link"):
        folder.create()

    assert folder.read_run() is not None  # a backup by hard links can be read
    assert is_untouched(outside)


def test_a_second_name_of_what_is_replaced_keeps_what_it_had(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.write_run(replace(UNFINISHED, command="old"))
    os.link(folder.run, tmp_path / "backup.json")

    folder.write_run(replace(UNFINISHED, command="new"))

    assert '"old"' in (tmp_path / "backup.json").read_text()


def test_a_link_that_appears_later_is_not_followed(tmp_path: Path, outside: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    for path in (folder.trials, folder.run, folder.report):
        path.symlink_to(outside / "precious.json")

    with pytest.raises(RunError, match=r"trials\.jsonl cannot be written"):
        folder.append_trial(trials()[0])
    with pytest.raises(RunError, match=r"trials\.jsonl cannot be written"):
        folder.mend_trials()
    folder.write_run(UNFINISHED)

    assert not folder.run.is_symlink()
    assert is_untouched(outside)


def test_a_new_front_deletes_only_members_of_the_old_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create()
    for name in ("notes.txt", "mine.json", "7.json", "007.json"):
        (folder.policies / name).write_text("mine")
    members = [Policy(MODEL, (Prune(1, keep),), evidence=(SEEN,)) for keep in range(3, 15)]

    write_front(folder, members)
    assert len(folder.members()) == 12
    write_front(folder, members[:2])

    left = {path.name for path in folder.policies.iterdir()}
    assert left == {"00.json", "01.json", "notes.txt", "mine.json", "7.json", "007.json"}


def test_nobody_waits_for_a_pipe_in_place_of_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    os.mkfifo(folder.lock)

    with (
        pytest.raises(RunError, match="lock cannot be written: No such device"),
        folder.locked(),
    ):
        pass


def test_a_list_of_trials_of_gigabytes_is_refused_and_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with folder.trials.open("wb") as file:
        file.truncate(2**33)  # takes no room on the disk

    with pytest.raises(RunError, match="larger than 64 MiB; a list of trials is not"):
        folder.mend_trials()

    assert folder.trials.stat().st_size == 2**33


@pytest.mark.parametrize("text", ["{", '{"format": "tokensearch.run", "version": 99}', "\0"])
def test_whatever_run_is_there_is_set_aside(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.run.write_text(text)
    folder.trials.write_text("torn")

    with pytest.raises(RunError):
        folder.create()
    folder.create(fresh=True)
    aside = folder.set_aside()

    assert aside == folder.path / "earlier-1"
    assert ((aside / "run.json").read_text(), (aside / "trials.jsonl").read_text()) == (
        text,
        "torn",
    )
    assert not folder.run.exists()
    folder.create()


def test_a_signal_waits_until_a_whole_run_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.run.write_text("{}")
    folder.trials.write_text("a trial")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.set_aside()

    assert {"run.json", "trials.jsonl"} <= {
        one.name for one in (folder.path / "earlier-1").iterdir()
    }
    assert not folder.trials.exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
