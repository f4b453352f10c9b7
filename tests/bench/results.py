"""What benches have in common: results come one by one, and what has come is kept.

With `--store NAME` they go to `results/NAME.json`, with the machine, the day and the commit: the
figures that README, docs and decisions quote.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import torch

from tokensearch.files import write_whole

R = TypeVar("R")
RESULTS = Path(__file__).with_name("results")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options of `collect`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("--out", default=None, help="file that is rewritten after every result")
    parser.add_argument("--store", default=None, metavar="NAME", help="keep it in the repository")
    parser.add_argument(
        "--within", type=float, default=None, help="seconds after which no result is begun"
    )


def collect(
    results: Iterable[R],
    options: argparse.Namespace,
    line: Callable[[R], str],
    document: Callable[[list[R]], Any] = list,
) -> list[R]:
    """Take results until they end or the time is up; print each, and keep all in the file."""
    start_s, found = perf_counter(), []
    for result in results:
        found.append(result)
        if not options.json:
            print(line(result), flush=True)
        if options.out:
            write_whole(Path(options.out), json.dumps(document(found), indent=2) + "\n")
        if options.within is not None and perf_counter() - start_s > options.within:
            print(f"no more is begun: {options.within:.0f} s are over", flush=True)
            break
    if options.json:
        print(json.dumps(document(found), indent=2))
    if options.store:
        store(options.store, document(found))
    return found


def store(name: str, results: Any) -> None:
    """Keep results in the repository, with what made them."""
    made = {
        "command": " ".join(["python", "-m", "tests.bench", *sys.argv[1:]]),
        "machine": f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": describe_commit(),
        "results": results,
    }
    write_whole(RESULTS / f"{name}.json", json.dumps(made, indent=1) + "\n")


def cpu_name() -> str:
    """Return what the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def describe_commit() -> str:
    """Return the commit that is checked out, and whether files differ from it."""
    asked = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
