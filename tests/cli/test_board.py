"""What others than the terminal are told of a search, as TensorBoard and as readers of lines."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.fixtures import run_folder, trials
from tokensearch.cli.board import SearchBoard
from tokensearch.cli.event_stream import EventStream
from tokensearch.errors import RunError
from tokensearch.records.run_folder import RunFolder


class Heard:
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, title: str, *, unit: str = "") -> None:
        self.said.append(title)

    def note(self, text: str) -> None:
        self.said.append(text)

    def caution(self, text: str) -> None:
        self.said.append(text)

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        self.said.append(text)


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in read.Scalars(name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_trial_is_drawn_once_with_its_own_figures(tmp_path: Path) -> None:
    folder, listener = RunFolder(tmp_path / "run"), Heard()
    board = SearchBoard(listener, folder, tmp_path / "board")
    run_folder(folder.path, profiles=False)

    for text in ("first", "second"):
        board.progress(done=1, total=2, seconds_left=None, text=text)
    board.close()

    assert listener.said == ["first", "second"]
    expected = [(one.number, pytest.approx(one.ratio, rel=1e-6)) for one in trials()]
    assert curve(tmp_path / "board", "search/latency_of_baseline") == expected
    right = [(one.number, pytest.approx(one.accuracy.share, rel=1e-6)) for one in trials()]
    assert curve(tmp_path / "board", "search/right") == right


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_line_that_is_still_written_waits_for_its_end(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", profiles=False)
    lines = folder.trials.read_bytes().splitlines(keepends=True)
    board = SearchBoard(Heard(), folder, tmp_path / "board")
    folder.trials.write_bytes(lines[0] + lines[1][:40])

    board.follow()
    folder.trials.write_bytes(lines[0] + lines[1])
    board.close()

    drawn = curve(tmp_path / "board", "search/right")
    assert [step for step, _ in drawn] == [trials()[0].number, trials()[1].number]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = run_folder(tmp_path / "run", profiles=False)

    with pytest.raises(RunError, match=r"file"):
        SearchBoard(Heard(), folder, tmp_path / "file")


def numbers(text: str) -> list[int]:
    events = [json.loads(line) for line in text.splitlines()]
    return [event["number"] for event in events if event["event"] == "trial"]


def test_trials_of_an_earlier_process_are_told_with_the_first_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", profiles=False)
    stream = EventStream(Heard(), folder)

    stream.progress(done=1, total=2, seconds_left=None, text="an image")
    assert numbers(capsys.readouterr().out) == []
    folder.append_trial(replace(trials()[0], number=90))
    stream.progress(done=2, total=2, seconds_left=None, text="trial 90")

    assert numbers(capsys.readouterr().out) == [*(one.number for one in trials()), 90]


def test_trials_that_were_set_aside_are_not_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run", profiles=False)
    stream = EventStream(Heard(), folder)

    folder.set_aside()
    folder.append_trial(trials()[0])
    stream.close()

    assert numbers(capsys.readouterr().out) == [trials()[0].number]


def test_a_caution_is_an_event_in_one_line_without_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EventStream(Heard(), RunFolder(tmp_path)).caution(
        "no answer\nof postgresql://me:secret@host/db"
    )

    event = json.loads(capsys.readouterr().out)
    assert event == {"event": "caution", "text": "no answer\nof postgresql://me:***@host/db"}
