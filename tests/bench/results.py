"""What benches have in common: results come one by one, and what has come is kept."""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from tokensearch.files import write_whole

R = TypeVar("R")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options of `collect`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.add_argument("--out", default=None, help="file that is rewritten after every result")
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
    return found
