"""`make gpu`: its limits hold, and whatever happens, what there was is kept and said."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from time import perf_counter, sleep

import pytest

from tests.bench.gpu import command
from tests.bench.gpu.command import PLANS, TOTAL_S, chosen, run_plan
from tests.bench.gpu.first import FIRST
from tests.bench.gpu.parts import ROOT, Part, Setting
from tests.bench.gpu.shown import (
    read_json,
    show_comparisons,
    show_ledger,
    show_noise,
    show_run,
    show_tests,
)
from tests.bench.gpu.summary import shown
from tests.bench.probe.shown import show_probe

NINE_MINUTES_S = 540
HANGS = "print('begun', flush=True); open('{}', 'w').write('[1'); import time; time.sleep(60)"


def part(name: str, code: str, *, limit_s: float = 30.0, file: str = "found.json") -> Part:
    """A part that runs some Python, and shows the JSON it wrote."""
    return Part(name, limit_s, "", lambda _: ["-c", code], lambda out: [str(read_json(out / file))])


def ran(parts: list[Part], folder: Path, **limits: float) -> tuple[dict[str, str], str]:
    """How each part ended by summary.json, and summary.md."""
    folder.mkdir()
    setting = Setting(folder, "cpu")
    run_plan(parts, setting, plan="first", start_s=perf_counter(), **limits)
    found = json.loads((folder / "summary.json").read_text())["parts"]
    text = (folder / "summary.md").read_text()
    return {name: end["ended"] for name, end in found.items()}, text


def packed(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as held:
        return {
            one.name: held.extractfile(one).read()  # type: ignore[union-attr]
            for one in held.getmembers()
        }


def words(file: Path) -> set[str]:
    return set(file.read_text(encoding="utf-8").split())


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_fits_into_nine_minutes(plan: str) -> None:
    assert sum(one.limit_s for one in PLANS[plan]) <= NINE_MINUTES_S
    assert TOTAL_S < NINE_MINUTES_S


def test_what_is_surest_and_most_wanted_comes_first() -> None:
    assert [one.name for one in FIRST] == [
        "probe",
        "tests",
        "kernels",
        "overhead",
        "diff-eager",
        "diff-cudagraph",
        "noise",
        "run",
        "presets",
        "compile",
    ]


def test_parts_are_chosen_by_name_and_keep_their_order() -> None:
    found = chosen(FIRST, ["run", "noise", "probe"], ["noise"])

    assert [one.name for one in found] == ["probe", "run"]


def test_gpu_tests_are_sought_in_files_that_hold_some(tmp_path: Path) -> None:
    (tests,) = (one for one in FIRST if one.name == "tests")

    asked = tests.command(Setting(tmp_path, "cuda"))

    files = [Path(name) for name in asked if name.endswith(".py")]
    assert Path("tests/runtime/test_cuda.py") in files
    folders = {folder for file in files for folder in (ROOT / file).relative_to(ROOT).parents}
    loaded = [*files, *(folder / "conftest.py" for folder in folders - {Path("tests"), Path()})]
    for file in (ROOT / one for one in loaded):
        assert not file.exists() or not {"jsonschema", "hypothesis"} & words(file), file
    assert asked[asked.index("-m", 2) + 1] == "gpu and not compiles"


def test_a_part_that_hangs_is_cut_off_and_what_it_had_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"

    ends, text = ran([part("slow", HANGS.format(out / "found.json"), limit_s=4.0)], out)

    assert ends == {"slow": "cut off after 4 s"}
    assert "| slow |  | cut off after 4 s | " in text
    assert f"{command.machine()}. Until " in text
    held = packed(tmp_path / "out.tgz")
    assert held["out/slow.log"].startswith(b"begun")
    assert held["out/found.json"] == b"[1"


def test_children_of_a_part_end_with_it(tmp_path: Path) -> None:
    out, child = tmp_path / "out", "import time; time.sleep(60)"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {child!r}])
open({str(out / "found.json")!r}, "w").write(str(child.pid))
"""

    ends, _ = ran([part("parent", code)], out)

    assert ends == {"parent": "exit code 0"}
    process = int((out / "found.json").read_text())
    for _ in range(100):  # whoever adopted it may take a moment to bury it
        if not running(process):
            break
        sleep(0.05)
    assert not running(process)


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def test_an_interrupted_part_may_still_sum_up(tmp_path: Path) -> None:
    code = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("summed up")
"""

    ran([part("slow", code, limit_s=5.0)], tmp_path / "out")

    assert "summed up" in (tmp_path / "out" / "slow.log").read_text()


def test_a_part_that_writes_nonsense_or_nothing_is_said(tmp_path: Path) -> None:
    out = tmp_path / "out"
    broken = part("broken", f"open({str(out / 'found.json')!r}, 'w').write('[1')")
    silent = part("silent", "raise SystemExit(3)", file="other.json")

    ends, text = ran([broken, silent], out)

    assert ends == {"broken": "exit code 0", "silent": "exit code 3"}
    assert "Its figures cannot be shown: ValueError: found.json is broken: " in text
    assert "Its figures cannot be shown: ValueError: other.json was not written" in text


@pytest.mark.parametrize("document", [None, 7, [1], {}, {"a": []}, [{"comparison": {}}]])
def test_figures_of_another_shape_never_end_the_run(document: object, tmp_path: Path) -> None:
    for one in FIRST:
        for name in ("diff-eager/ledger.json", "diff-cudagraph/ledger.json", "run/run.json"):
            write(tmp_path / name, document)
        write(tmp_path / f"{one.name}.json", document)

        assert all(isinstance(line, str) for line in shown(one, tmp_path))


def test_a_part_gets_no_more_than_is_left_of_the_whole(tmp_path: Path) -> None:
    parts = [part("slow", "import time; time.sleep(60)"), part("late", "pass")]

    ends, _ = ran(parts, tmp_path / "out", total_s=3.8)

    assert ends == {"slow": "cut off after 4 s", "late": "no time left of 4 s"}


@pytest.mark.long
def test_a_run_that_is_ended_from_outside_keeps_what_it_had(tmp_path: Path) -> None:
    out, archive = tmp_path / "out", tmp_path / "else" / "where.tgz"
    code = f"""
from pathlib import Path
from tests.bench.gpu import command
from tests.test_gpu_command import HANGS, part
file = {str(out / "found.json")!r}
quick, slow = part("quick", "print('done')"), part("slow", HANGS.format(file))
command.PLANS["first"] = (quick, slow)
command.main(["--device", "cpu", "--out", {str(out)!r}, "--archive", {str(archive)!r}])
"""
    harness = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    while not (out / "found.json").exists():
        assert harness.poll() is None
        sleep(0.05)

    harness.send_signal(signal.SIGTERM)

    assert harness.wait(timeout=30) == 128 + signal.SIGTERM
    held = packed(archive)
    assert held["out/quick.log"] == b"done\n"
    assert held["out/found.json"] == b"[1"
    ends = json.loads(held["out/summary.json"])["parts"]
    assert [end["ended"] for end in ends.values()] == ["exit code 0", "stopped from outside"]
    assert b"## slow\n\nIts figures cannot be shown: " in held["out/summary.md"]


def test_what_is_too_large_is_named_and_left_out_of_the_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "LARGEST_BYTES", 5000)
    out = tmp_path / "out"
    code = f"open({str(out / 'trace.json')!r}, 'w').write('x' * 6000)"

    _, text = ran([part("large", code)], out)

    assert "Too large for the archive: trace.json." in text
    assert "out/trace.json" not in packed(tmp_path / "out.tgz")


def test_every_outcome_of_a_test_is_kept_as_it_happens(tmp_path: Path) -> None:
    tests = """
import os, pytest
def test_right(): pass
def test_wrong(): assert 1 + 1 == 3, "sums"
@pytest.mark.skip(reason="no need")
def test_idle(): pass
def test_dies(): os._exit(9)
"""
    (tmp_path / "test_some.py").write_text(tests)
    asked = ["-p", "tests.bench.gpu.outcomes", "--outcomes", str(tmp_path / "tests.json")]
    alone = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *asked, *alone, str(tmp_path / "test_some.py")],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 9
    lines = show_tests(tmp_path / "tests.json")
    assert lines[0].startswith("1 passed, 1 failed, 1 skipped, 1 begun, in ")
    assert "1 skipped: Skipped: no need" in lines
    assert "| test_some.py::test_wrong | failed | AssertionError: sums |" in lines
    assert "| test_some.py::test_dies | begun |  |" in lines


COMPARISON = {
    "ratio": 0.9,
    "low": 0.88,
    "high": 0.92,
    "verdict": "faster",
    "cautions": ["drift"],
    "baseline": {"median_ms": 2.0, "passes_ms": [2.0] * 30},
    "candidate": {"median_ms": 1.8, "passes_ms": [1.8] * 30},
}


def test_timings_are_a_table_with_intervals_and_cautions(tmp_path: Path) -> None:
    found = [{"preset": "tome-r13", "cell": {"batch": 64}, "comparison": COMPARISON}]

    lines = show_comparisons(write(tmp_path / "a.json", found), ("preset", "batch"))

    assert lines[-1] == (
        "| tome-r13 | 64 | 0.900 [0.880, 0.920] | faster | 2.000 | 1.800 | 30 | drift |"
    )


def test_a_ledger_says_whether_it_closes(tmp_path: Path) -> None:
    bounds = {"value": -1.0, "low": -1.5, "high": -0.5}
    document = {
        "baseline": {"name": "none"},
        "candidate": {"name": "tome-r13"},
        "baseline_ms": 5.0,
        "candidate_ms": 4.0,
        "ratio": {"value": 0.8, "low": 0.79, "high": 0.81},
        "verdict": "faster",
        "closes": False,
        "closing": 0.07,
        "by_kind": [{"kind": "saved", "ms": bounds}],
        "words": ["Most of it is saved."],
    }
    write(tmp_path / "ledger.json", document)

    assert show_ledger(tmp_path) == [
        "none 5.000 ms, tome-r13 4.000 ms: 0.800 [0.790, 0.810]x, faster; DOES NOT CLOSE (7.0%).",
        "",
        "| kind | ms |",
        "| --- | --- |",
        "| saved | -1.000 [-1.500, -0.500] |",
        "",
        "Most of it is saved.",
    ]


def test_noise_is_counted_right_and_wrong(tmp_path: Path) -> None:
    document = {
        "a_a": {"comparisons": 9, "false_verdicts": 1},
        "planted": {"comparisons": 8, "share": 0.021, "found": 7, "wrong_way": 0},
        "intervals_that_hold_the_truth": 16,
        "half_width": 0.004,
        "baseline_moved": 0.01,
        "cautions": {},
    }

    lines = show_noise(write(tmp_path / "noise.json", document))

    assert lines[2:] == [
        "| A/A | 9 | 8 | 1 |",
        "| planted 2.10% | 8 | 7 | 0 |",
        "",
        "Half-width 0.40%; 16 intervals hold the truth; the baseline moved by 1.0%; "
        "cautions: none.",
    ]


def test_a_run_that_was_cut_off_says_how_far_it_came(tmp_path: Path) -> None:
    write(tmp_path / "run.json", {"result": None})
    (tmp_path / "trials.jsonl").write_text("{}\n{}\n")

    assert show_run(tmp_path) == ["No result yet; 2 trials are kept."]


def test_the_answer_and_the_front_of_a_run_are_shown(tmp_path: Path) -> None:
    result = {"outcome": "met", "seconds": 99.0, "trials": {"complete": 30}}
    write(tmp_path / "run.json", {"result": result})
    (tmp_path / "report.md").write_text(
        "# demo\n\n## The answer\n\n**0.48x**\n\n## Machine and cell\n\nx\n\n## The front\n\nrows\n"
    )

    assert show_run(tmp_path) == [
        "Outcome: met, in 99 s; trials: {'complete': 30}.",
        "\n### The answer\n\n**0.48x**",
        "\n### The front\n\nrows",
    ]


def test_the_probe_names_the_card_and_who_attends(tmp_path: Path) -> None:
    cell = {"choice": "cudnn", "default_us": 8.26, "flash_us": 9.0, "math_us": "RuntimeError: no"}
    document = {
        "machine": {
            "gpu": {"name": "Example GPU"},
            "host": {"python": "3.12.3", "processor": "Example CPU", "cores": 16},
            "packages": {"torch": "2.11.0", "timm": None},
            "settings": {"cuda": "13.0", "cudnn": 91900},
        },
        "nvml": {"driver": "580.1"},
        "stamps": {"in a graph": {"price of one, us": 1.2345678}},
        "attention": {"bfloat16, batch 64": cell, "section stopped": "after 28 s"},
    }

    lines = show_probe(write(tmp_path / "probe.json", document))

    assert lines[0] == (
        "**Example GPU**, driver 580.1, CUDA 13.0, cuDNN 91900; Example CPU, 16 cores; "
        "Python 3.12.3, torch 2.11.0."
    )
    assert "- in a graph: price of one, us 1.235" in lines
    assert "| bfloat16, batch 64 | cudnn | 8.3 | 9.0 | - | - | - | - | - | None |" in lines
    assert lines[-1] == "- section stopped: after 28 s"
