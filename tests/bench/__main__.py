"""Run one benchmark: `python -m tests.bench NAME [--json]`."""

import argparse
from importlib import import_module

# By name, so that one needs nothing of another's: `gpu` itself must hold no CUDA context.
BENCHES = {
    "costs": "tests.bench.costs",
    "demo": "tests.bench.demo",
    "diff": "tests.bench.diff",
    "pictures": "tests.bench.pictures.command",
    "presets": "tests.bench.presets",
    "readme": "tests.bench.readme",
    "probe": "tests.bench.probe.command",
    "fronts": "tests.bench.fronts",
    "ledgers": "tests.bench.ledgers",
    "kernels": "tests.bench.kernels",
    "gpu": "tests.bench.gpu.command",
    "reuse": "tests.bench.reuse",
    "resume": "tests.bench.resume",
    "runtime": "tests.bench.runtime",
    "noise": "tests.bench.noise",
    "search": "tests.bench.search",
    "soak": "tests.bench.soak",
    "structure": "tests.bench.structure",
    "tune": "tests.bench.tune",
}

parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
parser.add_argument("name", choices=BENCHES)
chosen, rest = parser.parse_known_args()
import_module(BENCHES[chosen.name]).main(rest)
