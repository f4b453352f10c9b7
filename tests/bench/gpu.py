"""A GPU's first word: everything that needs one, in one command of under nine minutes.

    python -m tests.bench gpu --out reports/DATE-gpu [--skip tests run presets]

Every part runs in its own process with its own time limit, and what it has written by then is kept.
With `--device cpu` the same parts run on a CPU, which is how they are tested without a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.bench.presets import MODEL
from tokensearch.measure import this_machine
from tokensearch.records import to_json

# Seconds per part; 510 in all, which leaves half a minute of the nine for starting up.
LIMITS_S = {"tests": 120, "run": 240, "presets": 150}
ROOT = Path(__file__).parents[2]


def main(arguments: list[str]) -> None:
    """Run the parts, and write summary.json after each."""
    options = parsed(arguments)
    out = Path(options.out).resolve()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU is at hand; --device cpu tries the parts on the CPU")
        return
    out.mkdir(parents=True, exist_ok=True)
    summary = {"machine": to_json(this_machine(torch.device(options.device))), "parts": {}}
    for part, command in commands(options, out).items():
        if part not in options.skip:
            summary["parts"][part] = run(part, command, out)
            (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu", description=__doc__)
    parser.add_argument("--out", default="reports/gpu")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--skip", nargs="*", default=[], choices=LIMITS_S)
    parser.add_argument("--model", default=MODEL, help="of the presets")
    parser.add_argument("--batch", nargs="+", default=["1", "8", "64"], help="of the presets")
    parser.add_argument("--seconds", default="4", help="per preset and batch")
    parser.add_argument("--presets", nargs="+", default=None, help="default: one per operator")
    return parser.parse_args(arguments)


def commands(options: argparse.Namespace, out: Path) -> dict[str, list[str]]:
    """The command of every part."""
    python, device = sys.executable, options.device
    search = ["-m", "tokensearch.cli", "run", "--device", device, "--out", str(out / "run")]
    timing = ["-m", "tests.bench", "presets", "--device", device, "--batch", *options.batch]
    timing += [
        "--model",
        options.model,
        "--seconds",
        options.seconds,
        "--out",
        str(out / "presets.json"),
    ]
    if options.presets:
        timing += ["--presets", *options.presets]
    return {
        "tests": [python, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider"],
        "run": [python, *search, "--minutes", "1.5"],
        "presets": [python, *timing],
    }


def run(part: str, command: list[str], out: Path) -> str:
    """Run one part; its output goes to PART.log. Returns how it ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    print(f"{part}: {' '.join(command)}", flush=True)
    with (out / f"{part}.log").open("w") as log:
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                timeout=LIMITS_S[part],
                check=False,
            )
            ended = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"cut off after {LIMITS_S[part]} s"
    print(f"{part}: {ended}\n{(out / f'{part}.log').read_text()}", flush=True)
    return ended
