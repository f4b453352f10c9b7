import json
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from typer.testing import CliRunner, Result

from tests.search.tiny import CONFIG, ByMacs, Unclocked, by_macs
from tests.search.tiny import model as tiny
from tokensearch.cli.main import app
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.search import SearchRun

FACTORY = "tests.search.tiny:model"
SHORT = ("--trials", "4", "--images", "24,20,20", "--batch-size", "2")

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def thinner() -> nn.Module:
    """Another model of five classes, on images of 24 px."""
    torch.manual_seed(1)
    shape = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "num_heads": 3, "depth": 2}
    return VisionTransformer(**shape, num_classes=5).eval()


def strange() -> nn.Module:
    """Knows four classes."""
    module = tiny()
    module.reset_classifier(4)
    return module


class Restless(VisionTransformer):
    """Draws noise in every pass."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = super().forward(x)
        return out + torch.randn_like(out)


def restless() -> nn.Module:
    shape = {"img_size": 24, "patch_size": 8, "embed_dim": 12, "num_heads": 3, "depth": 2}
    return Restless(**shape, num_classes=5).eval()


def called(tmp_path: Path, *args: str) -> Result:
    config = tmp_path / "data.json"
    config.write_text(json.dumps(CONFIG))
    options = ("--model", FACTORY, "--data-config", str(config), "--out", str(tmp_path / "run"))
    return CliRunner().invoke(app, ["run", *options, *SHORT, *args])


def test_a_smaller_model_stands_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "time_model", Unclocked.time_model)
    monkeypatch.setattr(PolicyEvaluator, "time_together", Unclocked.time_together)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
    monkeypatch.setattr(SearchRun, "forecast", ByMacs.forecast)

    result = called(
        tmp_path, "--smaller", "tests.cli.test_smaller_model:thinner", "--latency-target", "0.7x"
    )

    assert result.exit_code == 0, result.stderr
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    rivals = {one["name"]: one for one in document["result"]["rivals"]}
    assert rivals["tests.cli.test_smaller_model:thinner"]["pixels"] == 24
    assert "24 px" in rivals
    assert "| the smaller model tests.cli" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--smaller", "tests.cli.test_smaller_model:strange"],
            "the smaller model tests.cli.test_smaller_model:strange knows 4 classes and "
            f"{FACTORY} 5; it must know the same ones",
        ),
        (
            ["--smaller", "tests.cli.test_smaller_model:restless"],
            "model tests.cli.test_smaller_model:restless is not deterministic",
        ),
        (["--smaller", "diet_s"], "model 'diet_s' is unknown; the nearest are deit_s, "),
        (
            ["--smaller", "deit_t", "--smaller-checkpoint", "nothing.pth"],
            "checkpoint nothing.pth does not exist",
        ),
    ],
)
def test_a_smaller_model_that_will_not_do_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = called(tmp_path, *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert not (tmp_path / "run").exists()


def test_a_smaller_model_whose_weights_cannot_be_had_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr("tokensearch.hugging_face.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("tokensearch.models.try_to_load_from_cache", lambda *_: None)

    result = called(tmp_path, "--smaller", "deit_t")

    assert result.exit_code == 1
    assert "deit_tiny_patch16_224.fb_in1k cannot be downloaded" in result.stderr
    assert not (tmp_path / "run").exists()


def test_weights_without_the_smaller_model_they_are_for_are_wrong_usage(tmp_path: Path) -> None:
    result = called(tmp_path, "--smaller-checkpoint", "weights.safetensors")

    assert result.exit_code == 2
    assert "--smaller-checkpoint needs --smaller" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--resolutions", "24,many"), "--resolutions has 'many'; give sizes of 1 to 4096 px"),
        (("--dtypes", "fp16"), "--dtypes has 'fp16'; give some of float32, float16, bfloat16"),
        (("--backends", "eager,onnx"), "--backends has 'onnx'; give some of eager, compile, "),
        (("--resolutions", "8,16,24,32,40,48,56,64"), "make 7 combinations; give at most 6"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence_and_leave_nothing(
    tmp_path: Path, given: tuple[str, ...], told: str
) -> None:
    result = called(tmp_path, *given)

    assert result.exit_code == 2
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "run").exists()
