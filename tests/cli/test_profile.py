"""`tokensearch profile`: what it takes, leaves and refuses, and how it says how far it is."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from tests.cli.profiled import TINY, run, trace_of
from tests.costs.machine import SyntheticMachine, table_of, treads
from tokensearch.cli.console import with_remedy
from tokensearch.cli.profile_inputs import LEAST_ROUNDS, ProfileOptions, _Telling
from tokensearch.cli.progress import Live
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import Caution


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where an earlier profile left its trace."""
    folder = tmp_path_factory.mktemp("profile")
    for name in ("none", "other"):
        traces = folder / "tensorboard" / name
        traces.mkdir(parents=True)
        (traces / "none.1.pt.trace.json.gz").touch()
    (folder / "tensorboard" / "none" / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def profiled(folder: Path) -> Result:
    return run("profile", *TINY, "--out", folder)


def test_a_profile_is_printed_and_left(profiled: Result, folder: Path) -> None:
    assert profiled.exit_code == 0, profiled.output
    assert "GFLOP/s" in profiled.stdout
    assert json.loads((folder / "profile.json").read_text())["name"] == "none"


def test_work_is_said_to_be_that_of_a_batch(profiled: Result) -> None:
    assert "A pass of 2 images needs" in profiled.stdout


@pytest.mark.usefixtures("profiled")
def test_profiling_again_leaves_only_the_newer_trace_and_what_is_no_trace(folder: Path) -> None:
    own, other = (folder / "tensorboard" / name for name in ("none", "other"))

    (trace,) = own.glob("*.gz")
    assert trace.name != "none.1.pt.trace.json.gz"
    assert (own / "notes.txt").exists()
    assert list(other.iterdir())


def test_a_profile_takes_a_policy_or_a_preset_and_not_both(policy: Path) -> None:
    assert run("profile", "--policy", policy, "--preset", "none").exit_code == 2
    assert json.loads(run("profile", "--policy", policy, *TINY, "--json").stdout)["floor"]


def test_a_preset_is_no_policy_file() -> None:
    found = run("profile", "--policy", "none", *TINY)

    assert found.exit_code == 1
    assert "none is no policy" in found.stderr


def test_a_trace_is_no_policy_file_either(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "trace.json", width=8)

    found = run("profile", "--policy", trace, *TINY)

    assert found.exit_code == 1
    assert "trace.json is no policy file and no folder of a run" in found.stderr


def test_costs_that_cannot_be_written_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = table_of(SyntheticMachine(treads), seconds=10)
    monkeypatch.setattr("tokensearch.costs.sweep.sweep", lambda *_, **__: swept)
    (tmp_path / "costs.json").mkdir()

    found = run("profile", "--sweep", *TINY, "--out", tmp_path)

    assert found.exit_code == 1
    assert "costs.json cannot be written: Is a directory" in found.stderr


def test_progress_has_a_unit_and_says_what_comes_after_the_timing(profiled: Result) -> None:
    assert "1 of 1 s" in profiled.stderr
    assert "counting work and tracing operators" in profiled.stderr.splitlines()


@pytest.mark.parametrize("options", [(), ("--sweep",)])
def test_a_launch_bound_cell_is_said_before_anything_is_profiled_or_swept(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    found = LaunchCost(4.9, 5.0)
    monkeypatch.setattr(PolicyTimer, "launching", found)
    swept = table_of(SyntheticMachine(treads), seconds=10)
    monkeypatch.setattr("tokensearch.costs.sweep.sweep", lambda *_, **__: swept)

    told = run("profile", *TINY, *options).stderr.splitlines()

    assert told[0].startswith("model tests.search.tiny:model on cpu")
    assert told[1] == f"caution: {found.sentence}"


class Heard:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.bars: list[tuple[int, int]] = []

    def stage(self, title: str, *, unit: str = "") -> None:
        self.stages.append(f"{title}, in {unit}")

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        self.bars.append((done, total))


def test_seconds_that_are_over_too_early_are_followed_by_rounds() -> None:
    heard = Heard()
    tell = _Telling(heard, seconds=5.0)  # type: ignore[arg-type]  # as much of it as is used

    for rounds in range(LEAST_ROUNDS + 1):
        tell(rounds, 0.9 * (rounds + 1))

    assert heard.bars[:5] == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]
    assert heard.stages == ["going on to the fewest that an interval takes, in rounds"]
    assert heard.bars[5:] == [(rounds, LEAST_ROUNDS) for rounds in range(5, LEAST_ROUNDS + 1)]


def test_enough_rounds_end_with_the_seconds() -> None:
    heard = Heard()
    tell = _Telling(heard, seconds=1.5)  # type: ignore[arg-type]  # as much of it as is used

    for rounds in range(LEAST_ROUNDS + 1):
        tell(rounds, 1.6 * rounds / LEAST_ROUNDS)

    assert heard.stages == []
    assert heard.bars[-2:] == [(1, 2), (2, 2)]


@pytest.mark.parametrize("verb", ["profile", "diff"])
def test_help_names_the_default_model_and_the_fewest_rounds(verb: str) -> None:
    shown = re.sub(r"[\s│|]+", " ", run(verb, "--help").stdout)

    assert "default: the one a policy or profile was made for, else demo" in shown
    assert f"at least {LEAST_ROUNDS} rounds are timed" in shown


def test_an_unknown_preset_is_refused_before_a_model_is_named() -> None:
    found = run("profile", "--preset", "tome-r99x", *TINY)

    assert found.exit_code == 1
    assert found.stderr.startswith("error: preset 'tome-r99x' is unknown; the nearest are")
    assert "model" not in found.stderr


def test_what_is_nothing_of_ours_is_no_policy_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("to do")

    for name in (tmp_path / "notes.txt", "nowhere"):
        found = run("profile", "--policy", name, *TINY)

        assert found.exit_code == 1
        assert f"{Path(name).name} is no policy file and no folder of a run" in found.stderr


def test_a_bar_counts_in_its_unit_once_there_is_something_to_count() -> None:
    console = Console(file=StringIO(), force_terminal=True, width=100)
    with Live(console) as bars:
        bars.stage("timing", unit="s")
        bars.progress(done=3, total=5, seconds_left=2.0, text="7 rounds")
        bars.stage("tracing")

    assert isinstance(console.file, StringIO)
    shown = console.file.getvalue()
    assert "3/5 s" in shown
    assert "0/" not in shown


@pytest.mark.parametrize("caution", Caution)
def test_no_remedy_is_one_that_these_verbs_have_not(caution: Caution) -> None:
    words = with_remedy(caution)

    assert words.split(": ")[0] == caution.value.split(": ")[0]
    assert "warm-up" not in words
    assert "trace more" not in words


def test_a_model_is_not_said_to_be_itself(capsys: pytest.CaptureFixture[str]) -> None:
    ProfileOptions(model="demo", device="cpu", batch_size=1).timed()

    said = capsys.readouterr().err
    assert said.startswith("model demo on cpu, float32, batch 1, ")
    assert said.rstrip().endswith("; weights and images are random")
