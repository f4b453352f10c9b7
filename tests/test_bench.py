import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_the_gpu_parts_run_on_a_cpu_too(tmp_path: Path) -> None:
    """Everything but the device is the same, so that `make gpu` meets no surprise but the GPU."""
    command = [
        sys.executable,
        "-m",
        "tests.bench",
        "gpu",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    quick = ["--model", "vit_tiny_patch16_224", "--batch", "1", "--seconds", "0.1"]
    quick += ["--presets", "none", "ppt-r50"]

    done = subprocess.run(
        [*command, *quick, "--skip", "tests", "run"], cwd=ROOT, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["parts"] == {
        "presets": "exit code 0"
    }
    timed = json.loads((tmp_path / "presets.json").read_text())
    assert [result["preset"] for result in timed] == ["none", "ppt-r50"]
    assert "none" in (tmp_path / "presets.log").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_gpu_bench_says_so_and_succeeds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "gpu", "--out", str(tmp_path / "out")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "no NVIDIA GPU is at hand; --device cpu tries the parts on the CPU\n"
    assert not (tmp_path / "out").exists()


def test_the_noise_bench_counts_false_verdicts_and_planted_ones_found() -> None:
    command = [sys.executable, "-m", "tests.bench", "noise", "--model", "vit_tiny_patch16_224"]

    done = subprocess.run(
        [*command, "--repeats", "1", "--seconds", "0.1", "--threads", "1", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["a_a"]["comparisons"] == found["planted"]["comparisons"] == 1
    assert found["planted"]["share"] > 0
    assert [one["planted"] > 0 for one in found["results"]] == [False, True]


def test_the_costs_bench_predicts_policies_and_says_how_well() -> None:
    command = [sys.executable, "-m", "tests.bench", "costs", "--json", "--model", "test_vit"]
    quick = ["--batch", "2", "--policies", "3", "--seconds", "6", "--seconds-each", "0.1"]

    done = subprocess.run([*command, *quick], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [pair["predicted"] > 0 for pair in found["policies"]] == [True] * 3
    assert found["mean_absolute_error"] <= found["worst_error"]
    assert -1 <= found["spearman"] <= 1


@pytest.mark.slow
def test_the_search_bench_says_how_much_of_the_reference_is_found() -> None:
    command = [sys.executable, "-m", "tests.bench", "search", "--json", "--parts", "samplers"]
    options = ["--samplers", "random", "--seeds", "1", "--budget", "3"]

    found = subprocess.run([*command, *options], capture_output=True, text=True, check=True)

    document = json.loads(found.stdout)
    assert 0 < document["samplers"]["random"]["share"] < 1
    assert document["samplers"]["random"]["cost"] is None  # nothing finds 98 % in three evaluations
