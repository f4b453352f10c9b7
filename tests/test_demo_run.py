"""The main job on the bundled model, as `make run` does it: minutes long."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tokensearch.cli.main import app
from tokensearch.policy import load, load_set

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def test_the_bundled_model_is_halved_at_a_point_of_accuracy_at_most(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "--device", "cpu", "--out", str(tmp_path / "run")])

    assert result.exit_code == 0, result.output
    answer = load(tmp_path / "run" / "policy.json").evidence[0]
    assert answer.confirmed
    assert answer.extra["comparison"]["high"] <= 0.5
    assert answer.extra["paired"]["difference"] >= -0.01
    assert len(load_set(tmp_path / "run" / "front.json").policies) >= 5
