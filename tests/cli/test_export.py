import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.search.tiny import CONFIG, model
from tokensearch.cli.main import app
from tokensearch.policy import Policy, Pool, Prune, save
from tokensearch.runtime import describe

FACTORY = "tests.search.tiny:model"


def called(*args: str) -> Result:
    return CliRunner().invoke(app, ["export", *args])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy for the tiny model, and what images the model takes."""
    save(Policy(describe(model()), (Prune(1, 10), Pool(2, 6))), tmp_path / "policy.json")
    (tmp_path / "data.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()} - {"policy.json", "data.json"}


@pytest.mark.long
def test_a_policy_becomes_an_onnx_file_with_its_check(place: Path) -> None:
    result = called(
        "policy.json", "--model", FACTORY, "--data-config", "data.json", "--out", "tiny.onnx",
        "--batch-size", "2", "--json",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["input"] == [2, 3, 32, 32]
    assert found["max_abs_difference"] < 1e-5 < found["tolerance"]
    assert found["runtime"].startswith("ONNX Runtime ")
    assert files(place) == {"tiny.onnx"}


@pytest.mark.long
def test_half_precision_becomes_a_pt2_file_named_after_model_and_policy(place: Path) -> None:
    result = called(
        "policy.json", "--model", FACTORY, "--data-config", "data.json", "--format", "pt2",
        "--dtype", "bfloat16", "--dense",
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert "max abs difference" in result.stdout
    assert "features of every patch" in result.stdout
    assert files(place) == {"tests.search.tiny-model-policy.pt2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast"], "preset 'fast' is unknown; the nearest are last-cls"),
        (["none.json"], "none.json does not exist; give a policy file, or the name of a preset"),
        (["tome-r13", "--model", "diet_s"], "model 'diet_s' is unknown; the nearest are deit_s, "),
        (["tome-r13", "--out", "a.pt2"], "--out is a.pt2; a file of format onnx must end in .onnx"),
        (["tome-r13", "--out", "b/a.onnx"], "--out is b/a.onnx; its folder b does not exist"),
        (["tome-r13", "--checkpoint", "a.pth"], "checkpoint a.pth does not exist"),
        (["tome-r13", "--dtype", "bfloat16"], "bfloat16 cannot be exported to onnx: ONNX Runtime "),
        (["last-cls", "--dense"], "last_block is prefix_only, which leaves no patches for dense "),
        (["policy.json"], "the policy was made for VisionTransformer with blocks 6; demo has "),
        (
            ["none", "--model", FACTORY, "--img-size", "20"],
            "img_size 20 is no multiple of the model's patches of 8 pixels",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    place: Path, arguments: list[str], message: str
) -> None:
    result = called(*arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"\nerror: {message}" in f"\n{result.stderr}"
    assert files(place) == set()


def test_an_unknown_format_is_wrong_usage(place: Path) -> None:
    assert called("tome-r13", "--format", "tflite").exit_code == 2
