"""The same command after something else has changed: the factory's code, or the images."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.search.clockless import no_clock_in_runs
from tests.search.tiny import CONFIG
from tokensearch.cli.main import app

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FACTORY = """
import torch
from timm.models.vision_transformer import VisionTransformer


class Mine(VisionTransformer):
    def forward_head(self, x, pre_logits=False):
        return 2.0 * super().forward_head(x, pre_logits)


def model():
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 6}
    return Mine(**shape, num_classes=5).eval()
"""


@pytest.fixture(autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock_in_runs():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images and a factory, where commands are given."""
    (tmp_path / "data.json").write_text(json.dumps(CONFIG))
    draw(tmp_path / "images", 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def draw(folder: Path, blue: int) -> None:
    """Pictures whose files are as large whatever the blue: they are not compressed."""
    for kind in range(5):
        (folder / f"class{kind}").mkdir(parents=True, exist_ok=True)
        for number in range(20):
            picture = Image.new("RGB", (40, 36), (40 * kind, 10 * number, blue))
            picture.save(folder / f"class{kind}" / f"{number}.png", compress_level=0)


def run(here: Path, factory: str, *more: str) -> Result:
    """Give the same command, in a process that knows what the factory's file says now."""
    (here / "mine.py").write_text(factory)
    sys.modules.pop("mine", None)
    for cached in (here / "__pycache__").glob("mine.*"):
        cached.unlink()
    return CliRunner().invoke(
        app,
        [
            "run", "--model", "mine:model", "--data", "images", "--data-config", "data.json",
            "--trials", "2", "--images", "24,20,20", "--batch-size", "2", "--latency-target",
            "1000s", "--out", "run", *more,
        ],
    )  # fmt: skip


def done(result: Result) -> None:
    assert result.exit_code == 0, result.output


def said(result: Result) -> str:
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    return " ".join(result.stderr.split())


def cross_entropy(here: Path) -> float:
    """What the baseline loses on the images of `search`."""
    first = (here / "run" / "trials.jsonl").read_text().splitlines()[0]
    return float(json.loads(first)["accuracy"]["ce"])


def test_code_that_was_edited_is_noticed_and_a_fresh_start_goes_by_it(here: Path) -> None:
    done(run(here, FACTORY))
    before, edited = cross_entropy(here), FACTORY.replace("2.0", "3.0")

    assert "error: run folder run holds a run of a model whose code was another; --fresh" in said(
        run(here, edited)
    )
    done(run(here, edited, "--fresh"))

    assert cross_entropy(here) != before
    assert (here / "run" / "earlier-1" / "run.json").is_file()


def test_images_that_were_replaced_by_others_of_equal_size_are_noticed(here: Path) -> None:
    done(run(here, FACTORY))
    draw(here / "images", 200)

    assert (
        "error: 24 of the 24 images of the search split are others than those the run in run "
        "searched on; --fresh moves it" in said(run(here, FACTORY))
    )


def test_a_factory_with_dropout_left_on_is_refused_before_anything_is_written(here: Path) -> None:
    noisy = FACTORY.replace("2.0 * ", "torch.nn.functional.dropout(").replace(
        "super().forward_head(x, pre_logits)", "super().forward_head(x, pre_logits), 0.1)"
    )

    assert "error: model mine:model is not deterministic" in said(run(here, noisy))
    assert not (here / "run").exists()
