"""Images that are not square: models are built for them, timed and judged, and files say so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_run import called, pictures
from tests.search.clockless import no_clock_in_runs
from tokensearch.policy import load
from tokensearch.records.run_folder import RunFolder

MODEL = ("--model", "tests.search.tiny:model")
SHORT = ("--trials", "4", "--images", "24,20,20", "--batch-size", "2", "--latency-target", "0.9x")

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def _no_clock() -> Iterator[None]:
    """What timings say is not tested here, so none is taken."""
    with no_clock_in_runs():
        yield


@pytest.mark.parametrize(
    ("size", "folder"),
    [
        ("48x32", True),
        ("48,32", False),
        pytest.param("48,32", True, marks=pytest.mark.long),
        pytest.param("48x32", False, marks=pytest.mark.long),
    ],
)
def test_a_search_on_images_that_are_not_square(tmp_path: Path, size: str, folder: bool) -> None:  # noqa: FBT001
    data = ("--data", pictures(tmp_path / "images")) if folder else ()
    run = RunFolder(tmp_path / "run")

    result = called("run", *MODEL, "--img-size", size, *data, *SHORT, "--out", str(run.path))

    assert result.exit_code == 0, result.output
    cell = run.require_run().cell
    assert (cell.resolution, cell.columns) == (48, 32)
    assert load(run.policy).model.patch_tokens == 6 * 4
    assert "| resolution | 48 x 32 px |" in run.report.read_text()


@pytest.mark.long
def test_such_a_run_goes_on_and_is_retargeted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = ("run", *MODEL, "--img-size", "48x32", *SHORT, "--out", str(run.path))
    assert called(*arguments).exit_code == 0

    again = called(*arguments, "--trials", "5")
    moved = called(
        "retarget", str(run.path), *MODEL, "--latency-target", "0.95x", "--out",
        str(tmp_path / "moved"),
    )  # fmt: skip

    assert again.exit_code == 0, again.output
    assert len(run.read_trials()) == 5
    assert moved.exit_code == 0, moved.output
    assert RunFolder(tmp_path / "moved").require_run().cell.columns == 32


def test_an_evaluation_says_the_size(tmp_path: Path) -> None:
    arguments = ("evaluate", "tome-r1", "--rescale", *MODEL, "--img-size", "48x32", "--json")

    result = called(*arguments, "--images", "24,20,20", "--batch-size", "2")

    assert result.exit_code == 0, result.output
    cell = json.loads(result.stdout)["cell"]
    assert (cell["resolution"], cell["columns"]) == (48, 32)


def test_a_square_of_two_numbers_is_a_side() -> None:
    wide, side = (
        called("show", "tome-r1", "--rescale", *MODEL, "--img-size", size, "--json")
        for size in ("64x64", "64")
    )

    assert wide.stdout == side.stdout
    assert json.loads(side.stdout)["model"]["patch_tokens"] == 64


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("200", "img_size 200 is no multiple of the model's patches of 16 pixels up to 2048"),
        ("224x200", "img_size 200 is no multiple of the model's patches of 16 pixels up to 2048"),
        ("big", "--img-size is 'big'; it must be a side in pixels, 224, or 224x160"),
        ("0", "--img-size is '0'; it must be a side in pixels, 224, or 224x160"),
        ("1x2x3", "--img-size is '1x2x3'; it must be a side in pixels, 224, or 224x160"),
    ],
)
def test_a_size_that_cannot_be_is_one_sentence(size: str, said: str) -> None:
    result = called("show", "tome-r13", "--model", "vit_t", "--img-size", size)

    assert result.exit_code in {1, 2}
    assert said in " ".join(result.stderr.split())


def test_an_option_that_timm_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    result = called(
        "run", "--model", "vit_t", "--model-kwargs", "colour=3", "--out", str(tmp_path / "run")
    )

    assert result.exit_code == 1
    assert "cannot be built with colour=3" in result.stderr.splitlines()[-1]


def test_scenes_are_square(tmp_path: Path) -> None:
    result = called("run", "--img-size", "160x128", "--out", str(tmp_path / "run"))

    assert result.exit_code == 1
    assert "error: digit scenes are square, and the model takes 160 x 128 pixels" in result.stderr
