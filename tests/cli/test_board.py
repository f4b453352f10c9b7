"""What TensorBoard is told of a search, as TensorBoard reads it."""

from pathlib import Path

import pytest

from tests.report.fixtures import run_folder, trials
from tokensearch.cli.board import SearchBoard
from tokensearch.errors import RunError


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
    folder, listener = run_folder(tmp_path / "run", profiles=False), Heard()
    board = SearchBoard(listener, folder, tmp_path / "board")

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
    folder.trials.write_bytes(lines[0] + lines[1][:40])
    board = SearchBoard(Heard(), folder, tmp_path / "board")

    board.draw()
    folder.trials.write_bytes(lines[0] + lines[1])
    board.close()

    drawn = curve(tmp_path / "board", "search/right")
    assert [step for step, _ in drawn] == [trials()[0].number, trials()[1].number]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    folder = run_folder(tmp_path / "run", profiles=False)

    with pytest.raises(RunError, match=r"file"):
        SearchBoard(Heard(), folder, tmp_path / "file")
