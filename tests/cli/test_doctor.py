import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from tests.report.fixtures import comparison
from tokensearch import measure
from tokensearch.cli import health
from tokensearch.cli.health import Check
from tokensearch.cli.main import app
from tokensearch.records import Comparison


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without noise, so that nothing is timed."""
    scripted(monkeypatch, comparison(1.0, reach=0.004, verdict="same"))


def scripted(monkeypatch: pytest.MonkeyPatch, found: Comparison) -> None:
    def noise(device: torch.device) -> Comparison:
        return found

    monkeypatch.setattr(measure, "noise", noise)


@pytest.mark.usefixtures("quiet")
def test_an_able_machine_passes() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])

    document = json.loads(result.stdout)
    assert (result.exit_code, document["able"]) == (0, True)
    assert [check["name"] for check in document["checks"]] == [
        "python",
        *health.PACKAGES,
        "operators",
        "device",
        "threads",
        "attention",
        "demo",
        "noise",
    ]


@pytest.mark.usefixtures("quiet")
def test_a_missing_package_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PACKAGES", ("torch", "no-such-package"))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert "problem  no-such-package not installed\n" in result.stdout
    assert "pip install no-such-package\n" in result.stdout
    assert result.stderr.startswith("looking at packages")


def test_a_torchvision_of_another_release_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)

    found = health.vision()

    assert found.state == "problem"
    assert found.finding.startswith("torchvision does not fit torch: ")


def test_more_threads_than_cores_are_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)

    assert health.threads().state == "caution"


@pytest.mark.parametrize(
    ("found", "state", "finding"),
    [
        (
            comparison(1.0, reach=0.004, verdict="same"),
            "ok",
            "differences of 0.4 % can be told from noise",
        ),
        (
            comparison(1.0, reach=0.05, verdict="ambiguous"),
            "caution",
            "differences of 5.0 % can be told from noise",
        ),
        (
            comparison(0.9, reach=0.01),
            "caution",
            "one piece of work timed twice differed: 0.90x",
        ),
    ],
)
def test_noise_is_judged(
    monkeypatch: pytest.MonkeyPatch, found: Comparison, state: str, finding: str
) -> None:
    scripted(monkeypatch, found)

    judged = health.timing()

    assert (judged.state, judged.finding) == (state, finding)
    assert isinstance(judged, Check)
