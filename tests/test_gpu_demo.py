"""The plan for the bundled model: what is tried are the weights that were trained."""

import json
from pathlib import Path

from tests.bench.gpu.command import LARGEST_BYTES
from tests.bench.gpu.demo import DEMO, QUIET_BLOCKS, show_schedules, show_trainings, training
from tests.bench.gpu.parts import Setting
from tokensearch.demo.model import WEIGHTS


def test_schedules_are_tried_on_the_weights_that_each_training_leaves(tmp_path: Path) -> None:
    asked = {part.name: part.command(Setting(tmp_path, "cuda")) for part in DEMO}

    for quiet in QUIET_BLOCKS:
        command = training(tmp_path, quiet, device="cuda", tried=False)
        left = Path(command[command.index("--out") + 1]) / "demo.safetensors"
        given = asked[f"schedules-{quiet}"]
        assert Path(given[given.index("--checkpoint") + 1]) == left
        assert command[command.index("--quiet-blocks") + 1] == str(quiet)


def test_the_weights_fit_into_the_archive() -> None:
    assert WEIGHTS.stat().st_size <= LARGEST_BYTES


def test_what_schedules_lose_is_a_table(tmp_path: Path) -> None:
    found = {
        "what": "published",
        "name": "tome-r16",
        "share": 0.477,
        "images": 1000,
        "right": 930,
        "lost_points": 1.25,
        "lost_low": 0.5,
        "lost_high": 2.0,
    }
    (tmp_path / "schedules-6.json").write_text(json.dumps([found]))

    assert show_schedules(tmp_path / "schedules-6.json")[-1] == (
        "| published | tome-r16 | 0.477 | 930 of 1000 | 1.2 [0.5, 2.0] |"
    )


def test_each_training_is_shown(tmp_path: Path) -> None:
    note = {"seconds": 30.0, "stage": "nine", "step": 800, "loss": 1.2, "training_top1": 0.8}
    for quiet in QUIET_BLOCKS:
        (tmp_path / f"quiet-{quiet}").mkdir()
        (tmp_path / f"quiet-{quiet}" / "training.jsonl").write_text(json.dumps(note) + "\n")

    lines = show_trainings(tmp_path)

    assert [line for line in lines if line.endswith("blocks:")] == [
        f"{quiet} quiet blocks:" for quiet in QUIET_BLOCKS
    ]
    assert lines.count("| nine | 30 | 800 | 1.2 | 80.0% |  |") == len(QUIET_BLOCKS)
