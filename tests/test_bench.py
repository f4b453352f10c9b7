import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch

from tests.bench import costs, noise, readme, reuse, search_landscapes
from tests.bench.gpu.command import run_plan
from tests.bench.gpu.first import FIRST
from tests.bench.gpu.parts import Setting
from tests.bench.probe.notes import Measure, Notes
from tokensearch.data.scenes import TALLY, split_placement

ROOT = Path(__file__).parents[1]
LONG_S = 600.0  # limits are for GPUs; how fast a busy CPU is, is no matter here


@pytest.mark.slow
def test_the_gpu_parts_run_on_a_cpu_too(tmp_path: Path) -> None:
    """Everything but the device is the same, so that `make gpu` meets no surprise but the GPU."""
    presets = [replace(one, limit_s=LONG_S) for one in FIRST if one.name == "presets"]

    run_plan(
        presets, Setting(tmp_path, "cpu"), plan="first", start_s=perf_counter(), total_s=LONG_S
    )

    (end,) = json.loads((tmp_path / "summary.json").read_text())["parts"].values()
    assert end["ended"] == "exit code 0", (tmp_path / "presets.log").read_text()
    timed = json.loads((tmp_path / "presets.json").read_text())
    assert [result["preset"] for result in timed] == ["none"]
    assert "| none | 1 | " in (tmp_path / "summary.md").read_text()


def test_what_fails_on_a_machine_is_noted_and_the_probe_goes_on(tmp_path: Path) -> None:
    def section(_: torch.device) -> Iterator[tuple[str, Measure]]:
        yield "broken", lambda: 1 / 0
        yield "whole", lambda: 2.0
        raise RuntimeError("no more\nof this")

    notes = Notes(tmp_path / "probe.json")
    notes.take("some", section, torch.device("cpu"), until_s=60.0)

    assert json.loads((tmp_path / "probe.json").read_text()) == {
        "some": {
            "broken": "ZeroDivisionError: division by zero",
            "whole": 2.0,
            "section stopped": "RuntimeError: no more",
        }
    }


def test_the_probe_begins_nothing_when_its_time_is_up() -> None:
    notes, late = Notes(None), iter([("late", lambda: 1.0)])

    notes.take("some", lambda _: late, torch.device("cpu"), until_s=0.0)

    assert notes.document == {"some": {"section stopped": "0 s were over"}}


@pytest.mark.long
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_gpu_bench_says_so_and_succeeds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench", "gpu", "--out", str(tmp_path / "out")]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "no NVIDIA GPU is at hand; --device cpu tries the parts on the CPU\n"
    assert not (tmp_path / "out").exists()


def test_the_noise_bench_counts_false_verdicts_and_planted_ones_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick = ["--repeats", "1", "--seconds", "0.1", "--threads", "1", "--json"]

    noise.main(["--model", "test_vit", *quick])

    found = json.loads(capsys.readouterr().out)
    assert found["a_a"]["comparisons"] == found["planted"]["comparisons"] == 1
    assert found["planted"]["share"] > 0
    assert [one["planted"] > 0 for one in found["results"]] == [False, True]


def test_a_run_takes_the_place_of_the_one_that_readme_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (ROOT / "README.md").read_text()
    (tmp_path / "README.md").write_text(before)
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    name = readme.REPORT.search(before)
    assert name is not None
    (tmp_path / name[0]).mkdir(parents=True)
    (tmp_path / "run.json").write_text("{}")

    readme.write("Target met\n  0.5x  \n", "4 min 2 s", tmp_path / "run.json", "a machine")

    after = (tmp_path / "README.md").read_text()
    first, last = "<!-- run -->\n", "<!-- /run -->"
    assert after.partition(first)[0] == before.partition(first)[0]
    assert after.partition(last)[2] == before.partition(last)[2]
    quoted = after.partition(first)[2].partition(last)[0]
    assert quoted.startswith("On a machine, ")
    assert f"in 4 min 2 s after set-up:\n<!-- figures: make run -> {name[0]}/run.json" in quoted
    assert quoted.endswith("```\n$ make run\nTarget met\n  0.5x\n```\n")
    assert (tmp_path / name[0] / "run.json").read_text() == "{}"


@pytest.mark.parametrize("strength", [0.0, 0.2])
def test_what_digits_do_to_all_of_their_scenes_is_found_out(strength: float) -> None:
    placed = split_placement("report", 1500, TALLY)[1]
    labels, digits = placed.labels, placed.digits
    random = np.random.default_rng(0)
    does = strength * random.standard_normal(1797)  # to every scene that shows the digit
    values = does[digits].sum(1) + random.standard_normal(len(digits))

    effect, error = reuse.design_effect(
        values, labels.numpy(), reuse.shared(labels, digits), images=576
    )

    shared = 81 / 400  # digits that two scenes share, on average
    assert abs(effect - (1 + strength**2 * 575 * shared / (1 + 9 * strength**2))) < 4 * error
    assert error < 0.6


@pytest.mark.slow
def test_the_costs_bench_predicts_policies_and_says_how_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    quick = ["--batch", "2", "--policies", "3", "--seconds", "3", "--seconds-each", "0.1"]

    costs.main(["--json", "--model", "test_vit", *quick])

    found = json.loads(capsys.readouterr().out)
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


def test_a_search_of_a_landscape_evaluates_what_it_may_and_ends_with_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search_landscapes, "GP_SECONDS", 0.0)

    random, slow = (
        search_landscapes.run(search_landscapes.Entry(0, sampler, 0.0), 1, 6)
        for sampler in ("random", "gp")
    )

    assert (random.evaluations, slow.evaluations) == (6, 1)
    assert random.volume > slow.volume >= 0
