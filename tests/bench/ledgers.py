"""How often a ledger of a model with itself shows something: of no more than one in twenty it may.

    python -m tests.bench ledgers [--count 300] [--rounds 12 30 60 120] [--store ledgers-of-itself]

The passes are synthetic: every part wavers by 2 %, both profiles drift together. Noise that
remembers is AR(1), of its own in every part of both.
"""

import argparse
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from tests.bench.results import add_output, collect
from tests.diff.synthetic import compare_with_itself

COUNT, ROUNDS, MEMORY = 300, (12, 30, 60, 120), (0.0, 0.6)


def main(arguments: list[str]) -> None:
    """Print one line per noise and number of rounds; with --json, one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench ledgers", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="ledgers of each kind")
    parser.add_argument("--rounds", type=int, nargs="+", default=list(ROUNDS))
    add_output(parser)
    options = parser.parse_args(arguments)
    collect(counted(options.count, options.rounds), options, line)


def counted(count: int, rounds: list[int]) -> Iterator[dict[str, Any]]:
    """Yield how many of `count` ledgers are not empty, and how far a difference may be off."""
    for memory, each in product(MEMORY, rounds):
        ledgers = [compare_with_itself(i, rounds=each, memory=memory) for i in range(count)]
        off = [ledger.difference.reach / ledger.baseline_ms for ledger in ledgers]
        yield {
            "memory": memory,
            "rounds": each,
            "ledgers": count,
            "not_empty": sum(not ledger.empty for ledger in ledgers),
            "difference_reach": round(float(np.median(off)), 4),
        }


def line(result: dict[str, Any]) -> str:
    """One result as people read it."""
    noise = f"AR({result['memory']})" if result["memory"] else "independent"
    return (
        f"{noise:12s} {result['rounds']:4d} rounds  {result['not_empty']:3d} of "
        f"{result['ledgers']} not empty  a difference is known to "
        f"{result['difference_reach']:.1%} of a pass"
    )
