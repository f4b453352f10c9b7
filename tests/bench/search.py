"""How good the search is, and how fast: against a long run, Optuna's samplers, and publications.

    python -m tests.bench search [--json] [--store NAME]
        [--parts landscapes pictures samplers encodings wall presets exhaustive]

The first part is of landscapes whose truth is known: see `search_landscapes`. The second is of
DINOv2 and photographs, out of packages that are kept in --work: see `search_pictures`.
Latencies of the next two parts are those of one cost table, which is kept with the reference
front: so hypervolumes are of searching, and not of what a machine does meanwhile. The other parts
take real time. Costs are counted in full evaluations: images run through a policy over the images
of the split, remembered ones counted in.

`--make-reference` makes the reference front anew (about an hour on two cores).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

from tests.bench.results import store
from tests.bench.searching import ENCODINGS, Bench, Curve
from tokensearch.records.run_settings import SAMPLERS

SEEDS, BUDGET = 5, 120.0
ON_DEMO = ("local", "tpe", "nsga2", "random")  # samplers; the others take minutes a run
WANTED = 0.98  # of the reference's hypervolume
CORES = 2
READY: dict[str, Bench] = {}  # what a process of the pool works with
PARTS = ("landscapes", "pictures", "samplers", "encodings", "wall", "presets", "exhaustive")


def main(arguments: list[str]) -> None:
    """Print what each part found; with --json, one JSON document."""
    options = parsed(arguments)
    if options.make_reference:
        from tests.bench.search_reference import make_reference

        make_reference(options.answers)
        return
    say = (lambda _: None) if options.json else (lambda text: print(text, flush=True))
    found: dict[str, Any] = {}
    if "landscapes" in options.parts:
        found["landscapes"] = landscapes(options, say)
    if "pictures" in options.parts:
        found["pictures"] = pictures(options, say)
    if {*options.parts} - {"landscapes", "pictures"}:
        found |= of_demo(options, say)
    if options.store:
        store(options.store, found)
    if options.json:
        print(json.dumps(found))


def of_demo(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the parts that search the bundled model."""
    bench = Bench.load(options.answers)
    found: dict[str, Any] = {"reference": bench.reference_volume, "how": bench.how}
    say(f"reference hypervolume {bench.reference_volume:.4f}: {bench.how}")
    parts: dict[str, Callable[[], Any]] = {
        "samplers": lambda: samplers(bench, options, say),
        "encodings": lambda: encodings(bench, options, say),
        "wall": lambda: wall(bench, options, say),
        "presets": lambda: presets(bench, options, say),
        "exhaustive": lambda: exhaustive(bench, options, say),
    }
    return found | {part: parts[part]() for part in options.parts if part in parts}


def landscapes(options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Run every sampler on synthetic landscapes, a process per core."""
    from tests.bench.search_landscapes import SAMPLERS as LANDSCAPE_SAMPLERS
    from tests.bench.search_landscapes import compare, line, runnable_samplers, summarise

    contests, runnable = [], runnable_samplers()
    samplers = [name for name in options.samplers or LANDSCAPE_SAMPLERS if name in runnable]
    if "cma-es" not in runnable:
        say("cma-es is left out: pip install cmaes")
    with ProcessPoolExecutor(CORES, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for contest in compare(pool, options.seeds, round(options.budget), samplers):
            contests.append(contest)
            say(line(contest))
            if options.store:  # what has come is kept
                store(options.store, {"landscapes": summarise(contests)})
    return summarise(contests)


def pictures(options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Run samplers on DINOv2 and photographs; say so where their packages cannot be had."""
    from tests.bench.pictures.command import prepare
    from tests.bench.pictures.material import MissingMaterialError
    from tests.bench.search_pictures import compare_on_pictures, line

    torch.set_num_threads(CORES)
    try:
        material = prepare(options.work)
    except MissingMaterialError as error:
        say(f"pictures are skipped, since packages cannot be had: {error}")
        return []
    rows = []
    for seed in range(options.seeds):
        for row in compare_on_pictures(
            material.checkpoint,
            material.data,
            seed=seed,
            budget=round(options.budget),
            seconds=60 * options.minutes,
        ):
            rows.append(row)
            say(line(row))
    return rows


def samplers(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Run every sampler by the same search, from several seeds, to the same budget."""
    return compared(
        bench, options, say, [(name, "default") for name in options.samplers or ON_DEMO]
    )


def encodings(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Run the default sampler on every encoding of the same freedom."""
    return compared(bench, options, say, [("local", name) for name in ENCODINGS])


def compared(
    bench: Bench,
    options: argparse.Namespace,
    say: Callable[[str], None],
    ways: Sequence[tuple[Any, str]],
) -> dict[str, Any]:
    """Search each way from every seed: a process per core, for no time is taken here."""
    rows = {}
    with ProcessPoolExecutor(CORES, get_context("spawn"), start, (options.answers,)) as pool:
        for sampler, space in ways:
            asked = [(sampler, seed, options.budget, space) for seed in range(options.seeds)]
            name = sampler if space == "default" else f"{sampler} in {space}"
            rows[name] = summed(bench, list(pool.map(searched, asked)), options.budget)
            say(describe_row(name, rows[name]))
    return rows


def start(answers: Path | None) -> None:
    """Prepare a process of the pool."""
    torch.set_num_threads(1)
    READY["bench"] = Bench.load(answers)


def searched(asked: tuple[Any, int, float, str]) -> Curve:
    """Search once, in a process of the pool."""
    sampler, seed, budget, space = asked
    return READY["bench"].searched(sampler, seed, budget, space=space)


def summed(bench: Bench, curves: Sequence[Curve], budget: float) -> dict[str, Any]:
    """Medians over seeds: share of the reference's volume at the end, and the cost of 98 %."""
    ends = [curve.volume_at(budget) / bench.reference_volume for curve in curves]
    costs = [curve.cost_of(WANTED * bench.reference_volume) for curve in curves]
    reached = sorted(cost if cost is not None else float("inf") for cost in costs)
    middle = reached[len(reached) // 2]
    return {
        "share": median(ends),
        "shares": ends,
        "cost": None if middle == float("inf") else middle,
        "costs": costs,
        "trials": median(curve.trials for curve in curves),
    }


def describe_row(name: str, row: dict[str, Any]) -> str:
    """One sampler or encoding in one line."""
    cost = "not within the budget" if row["cost"] is None else f"{row['cost']:.0f} full evaluations"
    spread = ", ".join(f"{100 * share:.1f}" for share in row["shares"])
    return (
        f"{name:18} {100 * row['share']:5.1f} % of the reference at the end ({spread}); "
        f"98 % after {cost}; {row['trials']:.0f} trials"
    )


def wall(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Real time to 98 %: the default search, and Optuna's TPE alone for five times as long."""
    from tests.bench.search_wall import default_seconds, plain_share

    ours = []
    for seed in range(options.wall_seeds):
        ours.append(default_seconds(bench, seed))
        took = "never" if ours[-1] is None else f"after {ours[-1]:.0f} s"
        say(f"wall: the default search from seed {seed} reached 98 % {took}")
    middle = median(float("inf") if one is None else one for one in ours)
    if middle == float("inf"):
        return {"ours": ours, "plain": None}
    plain = plain_share(bench, 5 * middle, seed=0)
    say(
        f"wall: the default search takes {middle:.0f} s to 98 % (sweep included, median of "
        f"{len(ours)} seeds); Optuna's TPE, from one seed, with full evaluations reaches "
        f"{100 * plain.share:.1f} % in {plain.seconds:.0f} s ({plain.trials} trials)"
        + (f", 98 % after {plain.reached:.0f} s" if plain.reached is not None else "")
    )
    return {"ours": ours, "plain": asdict(plain)}


def presets(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Hold what is found against publications, at equal latency and at equal accuracy."""
    from tests.bench.search_presets import against_presets

    rows = []
    for row in against_presets(bench, minutes=options.minutes):
        rows.append(row)
        say(row.line)
    right, near = (
        median(0.0 if one is None else one.share for one in found)
        for found in ([row.as_right for row in rows], [row.as_near for row in rows])
    )
    say(
        f"presets: faster at their accuracy by {100 * right:.1f} % in the median (10 wanted), at "
        f"their divergence by {100 * near:.1f} %; 0 % where none was found, or worse"
    )
    return {"rows": [asdict(row) for row in rows], "as_right": right, "as_near": near}


def exhaustive(bench: Bench, options: argparse.Namespace, say: Callable[[str], None]) -> Any:
    """Try every schedule of a small space, then see when the search has found all of the front."""
    from tests.bench.search_exhaustive import found_after

    rows = [found_after(bench, seed) for seed in range(options.seeds)]
    for row in rows:
        say(row.line)
    return [asdict(row) for row in rows]


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench search")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--wall-seeds", type=int, default=1)
    parser.add_argument("--budget", type=float, default=BUDGET)
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="of searching, for presets and pictures"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pictures"), help="folder for packages of pictures"
    )
    parser.add_argument(
        "--samplers",
        nargs="+",
        choices=(*SAMPLERS, "cma-es"),  # on landscapes alone
        help="the usual: all that can run on landscapes, four on the demo",
    )
    parser.add_argument("--answers", type=Path, help="file of answers kept between runs")
    parser.add_argument("--store", metavar="NAME", help="keep the results in the repository")
    parser.add_argument("--make-reference", action="store_true")
    return parser.parse_args(arguments)
