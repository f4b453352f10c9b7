"""Run one benchmark: `python -m tests.bench NAME [--json]`."""

import argparse
from collections.abc import Callable

from tests.bench import costs, diff, gpu, noise, presets, runtime, search

BENCHES: dict[str, Callable[[list[str]], None]] = {
    "costs": costs.main,
    "diff": diff.main,
    "presets": presets.main,
    "gpu": gpu.main,
    "runtime": runtime.main,
    "noise": noise.main,
    "search": search.main,
}

parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
parser.add_argument("name", choices=BENCHES)
chosen, rest = parser.parse_known_args()
BENCHES[chosen.name](rest)
