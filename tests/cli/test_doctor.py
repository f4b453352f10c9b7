import json

import pytest
import torch
from typer.testing import CliRunner

from tests.report.fixtures import comparison
from tokensearch import measure
from tokensearch.cli.main import app
from tokensearch.doctor import machine
from tokensearch.doctor.machine import HealthCheck
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.measurements import Comparison


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without noise, so that nothing is timed."""
    scripted(monkeypatch, comparison(1.0, reach=0.004, verdict="same"))


def scripted(monkeypatch: pytest.MonkeyPatch, found: Comparison) -> None:
    def noise(device: torch.device) -> Comparison:
        return found

    monkeypatch.setattr(measure, "measure_noise", noise)


@pytest.mark.usefixtures("quiet")
def test_an_able_machine_passes() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])

    document = json.loads(result.stdout)
    assert (result.exit_code, document["able"]) == (0, True)
    assert [check["name"] for check in document["checks"]] == [
        "python",
        *machine.PACKAGES,
        "operators",
        "device",
        "threads",
        "attention",
        "demo",
        "noise",
    ]


@pytest.mark.usefixtures("quiet")
def test_a_machine_with_a_gpu_is_asked_about_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(machine, "attention", lambda: HealthCheck("attention", "ok", ""))
    monkeypatch.setattr(machine, "launches", lambda: HealthCheck("launches", "ok", "4.0 us"))

    assert [check.name for check in machine.examine_machine()][-2:] == ["launches", "noise"]


@pytest.mark.parametrize(
    ("free_from", "found", "words"),
    [
        (1, (None, 1), "does not wait for launches even at batch 1"),
        (8, (1, 8), "is launch-bound at batch 1, and no longer at 8"),
        (256, (64, 256), "is launch-bound at batch 64, and no longer at 256"),
        (1000, (256, None), "is launch-bound at batch 256"),
    ],
)
def test_the_batch_at_which_launches_no_longer_count_is_found(
    free_from: int, found: tuple[int | None, int | None], words: str
) -> None:
    def probe(batch: int) -> LaunchCost:
        return LaunchCost(5.0, 5.0 if batch < free_from else 50.0)

    assert machine.bound_up_to(probe) == found
    assert machine.batches_words(*found) == f"an eager pass of deit_s in half precision {words}"


@pytest.mark.gpu
def test_a_gpu_says_what_a_launch_costs() -> None:
    found = machine.launches()

    assert found.finding.startswith("a launch takes the host ")


@pytest.mark.usefixtures("quiet")
def test_a_missing_package_is_a_problem_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert "problem  no-such-package not installed\n" in result.stdout
    assert "pip install no-such-package\n" in result.stdout
    assert result.stderr.startswith("looking at packages")


def test_a_torchvision_of_another_release_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: object) -> None:
        raise OSError(f"{path}: undefined symbol")

    monkeypatch.setattr(torch.ops, "load_library", fail)

    found = machine.vision()

    assert found.state == "problem"
    assert found.finding.startswith("torchvision does not fit torch: ")


def test_more_threads_than_cores_are_a_caution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)

    assert machine.threads().state == "caution"


@pytest.mark.parametrize(
    ("found", "state", "finding"),
    [
        (
            comparison(1.0, reach=0.004, verdict="same"),
            "ok",
            "differences above 0.4 % can be told from noise",
        ),
        (
            comparison(1.0, reach=0.05, verdict="ambiguous"),
            "caution",
            "differences above 5.0 % can be told from noise",
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

    judged = machine.timing()

    assert (judged.state, judged.finding) == (state, finding)
    assert isinstance(judged, HealthCheck)
