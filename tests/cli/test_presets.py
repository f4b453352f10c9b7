import json

from typer.testing import CliRunner

from tokensearch.cli.main import app
from tokensearch.policy import PRESETS


def test_every_preset_is_listed_with_its_source() -> None:
    result = CliRunner().invoke(app, ["presets"])

    assert (result.exit_code, result.stderr) == (0, "")
    for name in PRESETS:
        assert f"\n {name} " in result.stdout
    assert "arXiv:2210.09461" in result.stdout


def test_json_says_which_fit() -> None:
    result = CliRunner().invoke(app, ["presets", "--model", "vit_large_patch32_384", "--json"])

    fits = {item["name"]: item["fits"] for item in json.loads(result.stdout)}
    assert fits["none"]
    assert not fits["tome-r13"]
