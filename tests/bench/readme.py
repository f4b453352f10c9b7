"""Run what README quotes, and quote it: the run of the bundled model, on this machine, now.

    python -m tests.bench readme [--machine "two quiet cores of an AMD EPYC"]

It takes the time of `make run`, and wants a machine with nothing else to do. It replaces the text
between the marks in README.md, and `run.json` and README.md in the folder of reports that README
names. Read what came out: sentences elsewhere may say what no longer holds.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from tests.bench.results import cpu_name, describe_commit

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"(?s)(?<=<!-- run -->\n).*(?=<!-- /run -->)")
REPORT = re.compile(r"reports/[\w-]+(?=/run\.json)")
FOLDER = Path("runs") / "demo-cpu-0.5x"


def main(arguments: list[str]) -> None:
    """Run, and write README and the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench readme", description=__doc__)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--machine", default=f"{cores} cores of an {cpu_name()}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        said, took = run(Path(place))
        write(said, took, Path(place) / FOLDER / "run.json", options.machine)


def run(place: Path) -> tuple[str, str]:
    """Search as `make run` does; return what it prints and how long it took."""
    command = [sys.executable, "-m", "tokensearch.cli", "run", "--device", "cpu", "--no-remember"]
    start_s = perf_counter()
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    minutes, seconds = divmod(round(perf_counter() - start_s), 60)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nexit code {done.returncode}: nothing was written")
    return done.stdout, f"{minutes} min {seconds} s"


def write(said: str, took: str, run_json: Path, machine: str) -> None:
    """Quote a run in README, and keep it in the report that README names."""
    readme, commit = ROOT / "README.md", describe_commit()  # before anything is written
    before = readme.read_text()
    today, name = datetime.now(UTC).date().isoformat(), REPORT.search(before)
    assert name is not None
    lines = "\n".join(line.rstrip() for line in said.strip("\n").splitlines())
    quote = (
        f"On {machine}, {today}, in {took} after set-up:\n"
        f"<!-- figures: make run -> {name[0]}/run.json -->\n"
        f"```\n$ make run\n{lines}\n```\n"
    )
    readme.write_text(QUOTED.sub(lambda _: quote, before))
    report = ROOT / name[0]
    shutil.copyfile(run_json, report / "run.json")
    (report / "README.md").write_text(
        f"# The bundled model on CPU cores\n\n"
        f"The run that the project's README quotes: `make run` on {machine}, {today}, at "
        f"{commit},\n{took} after set-up. `run.json` is what it left.\n"
        f"`python -m tests.bench readme` runs it again, and replaces both.\n"
    )
    print(quote)
