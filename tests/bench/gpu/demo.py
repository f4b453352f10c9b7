"""The plan that makes the bundled model better at its task: to count nine digits.

Two models go on from the weights that ship, side by side on one card, since neither fills it. They
differ in how many blocks are to pass before the class token gathers. Then each is held to what
schedules of half the work cost it. `tokensearch/demo/README.md` says what is wanted of them.

    python -m tests.bench.gpu.demo --device cuda --out DIR

trains the two, which is the first part.
"""

import argparse
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.bench.gpu.first import bench
from tests.bench.gpu.parts import Part, Setting
from tests.bench.gpu.second import show_training
from tests.bench.gpu.shown import read_json, table
from tokensearch.demo.model import WEIGHTS

QUIET_BLOCKS = (6, 8)
WEIGHTS_NAME = "demo.safetensors"


def train(setting: Setting) -> list[str]:
    asked = ["-m", "tests.bench.gpu.demo", "--device", setting.device, "--out", str(setting.out)]
    return [*asked, "--tried"] if setting.tried else asked


def folder(out: Path, quiet: int) -> Path:
    return out / f"quiet-{quiet}"


def training(out: Path, quiet: int, *, device: str, tried: bool) -> list[str]:
    """The options of the interpreter that train one model."""
    asked = ["--seconds", "180", "--batch", "512", "--held-out", "500", "--compile"]
    if tried:
        asked = ["--seconds", "8", "--batch", "2", "--held-out", "4"]
    return [
        *("-m", "tokensearch.demo.train", "--device", device, *asked, "--no-checkpoint"),
        *("--start", str(WEIGHTS), "--quiet-blocks", str(quiet), "--out", str(folder(out, quiet))),
    ]


def schedules(setting: Setting, *, quiet: int) -> list[str]:
    asked = ["--images", "1000", "--batch", "250", "--within", "40"]
    if setting.tried:
        asked = ["--images", "4", "--batch", "4", "--within", "3"]
    weights = str(folder(setting.out, quiet) / WEIGHTS_NAME)
    asked += ["--device", setting.device, "--checkpoint", weights]
    return bench("demo", setting, *asked, out=f"schedules-{quiet}.json")


def show_trainings(out: Path) -> list[str]:
    """Loss and accuracy of each so far."""
    return [
        line
        for quiet in QUIET_BLOCKS
        for line in ("", f"{quiet} quiet blocks:", "", *show_training(folder(out, quiet)))
    ]


def show_schedules(path: Path) -> list[str]:
    """A row per policy, as the bench came to them."""
    rows = [
        (
            *(found["what"], found["name"], f"{found['share']:.3f}"),
            f"{found['right']} of {found['images']}",
            f"{found['lost_points']:.1f} [{found['lost_low']:.1f}, {found['lost_high']:.1f}]",
        )
        for found in read_json(path)
    ]
    return table(("what", "policy", "share of the work", "right", "points lost"), rows)


DEMO = (
    Part(
        "train",
        215,
        "whether the bundled model counts nine digits better after more training",
        train,
        show_trainings,
    ),
    *(
        Part(
            f"schedules-{quiet}",
            60,
            f"what half of the work costs it, after {quiet} quiet blocks",
            partial(schedules, quiet=quiet),
            partial(lambda quiet, out: show_schedules(out / f"schedules-{quiet}.json"), quiet),
        )
        for quiet in QUIET_BLOCKS
    ),
)


def main() -> int:
    """Train both at once; return the greater exit status."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tried", action="store_true", help="only prove that it runs")
    options = parser.parse_args()
    commands = (
        training(options.out, quiet, device=options.device, tried=options.tried)
        for quiet in QUIET_BLOCKS
    )
    processes = [subprocess.Popen([sys.executable, *command]) for command in commands]
    return max(abs(process.wait()) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
