"""What parts left, as short tables of Markdown. Reading may fail: the summary says so."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

MOST_FAILURES = 20  # in the summary; all are in the part's log


def read_json(path: Path) -> Any:
    """Return a part's document; ValueError says what is the matter with it."""
    if not path.is_file():
        raise ValueError(f"{path.name} was not written")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is broken: {error}") from error


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell(value) for value in line) + " |" for line in lines]


def cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def interval(found: Mapping[str, Any], key: str = "ratio") -> str:
    return f"{found[key]:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def show_tests(path: Path) -> list[str]:
    """How many tests passed, and why others did not."""
    found = read_json(path)
    counted = Counter(one["outcome"] for one in found)
    seconds = sum(one["seconds"] for one in found)
    said = ", ".join(f"{number} {outcome}" for outcome, number in counted.items())
    wrong = [one for one in found if one["outcome"] in {"failed", "begun"}]
    rows = [(one["test"], one["outcome"], one["message"]) for one in wrong[:MOST_FAILURES]]
    lines = [f"{said or 'no tests'}, in {seconds:.0f} s."]
    for why, number in Counter(o["message"] for o in found if o["outcome"] == "skipped").items():
        lines.append(f"{number} skipped: {why}")
    return [*lines, "", *table(("test", "outcome", "message"), rows)] if rows else lines


def show_comparisons(path: Path, names: Sequence[str]) -> list[str]:
    """One row per comparison; `names` are the fields that say of what."""
    found = [one for one in read_json(path) if "comparison" in one]
    rows = [(*(named(one, name) for name in names), *compared(one)) for one in found]
    head = (*names, "ratio", "verdict", "baseline ms", "candidate ms", "pairs", "cautions")
    return table(head, rows)


def show_kernels(path: Path) -> list[str]:
    """A row per operator and shape, and the fastest tile of each where others were tried."""
    found = read_json(path)
    shape = ("operator", "dtype", "batch", "tokens")
    rows = [
        (*(one[name] for name in shape), *(f"{one[way]:.2f}" for way in ("torch_us", "fused_us")))
        for one in found
        if "tile" not in one
    ]
    lines = table((*shape, "small operations, us", "fused, us"), rows)
    best: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for one in found:
        if "tile" in one and "fused_us" in one:
            key = tuple(one[name] for name in shape)
            best[key] = min(best.get(key, one), one, key=lambda one: float(one["fused_us"]))
    rows = [(*key, one["tile"], f"{one['fused_us']:.2f}") for key, one in best.items()]
    return [*lines, "", *table((*shape, "fastest other tile", "us"), rows)] if rows else lines


def named(result: Mapping[str, Any], name: str) -> object:
    return result[name] if name in result else result["cell"][name]


def compared(result: Mapping[str, Any]) -> tuple[object, ...]:
    found = result["comparison"]
    before, after = found["baseline"], found["candidate"]
    return (
        interval(found),
        found["verdict"],
        f"{before['median_ms']:.3f}",
        f"{after['median_ms']:.3f}",
        len(before["passes_ms"]),
        ", ".join(found["cautions"]),
    )


def show_ledger(folder: Path) -> list[str]:
    """The difference, what it is made of, and whether that adds up."""
    found = read_json(folder / "ledger.json")
    before, after = found["baseline"]["name"], found["candidate"]["name"]
    closes = "closes" if found["closes"] else "DOES NOT CLOSE"
    rows = [(one["kind"], interval(one["ms"], "value")) for one in found["by_kind"]]
    return [
        f"{before} {found['baseline_ms']:.3f} ms, {after} {found['candidate_ms']:.3f} ms: "
        f"{interval(found['ratio'], 'value')}x, {found['verdict']}; "
        f"{closes} ({found['closing']:.1%}).",
        "",
        *table(("kind", "ms"), rows),
        "",
        *found["words"],
    ]


def show_noise(path: Path) -> list[str]:
    """How many verdicts were right, on models that differ by nothing and by a little."""
    found = read_json(path)
    own, planted = found["a_a"], found["planted"]
    share = "" if planted["share"] is None else f" {planted['share']:.2%}"
    right = own["comparisons"] - own["false_verdicts"]
    rows = [
        ("A/A", own["comparisons"], right, own["false_verdicts"]),
        (f"planted{share}", planted["comparisons"], planted["found"], planted["wrong_way"]),
    ]
    return [
        *table(("what", "comparisons", "right", "wrong"), rows),
        "",
        f"Half-width {found['half_width']:.2%}; {found['intervals_that_hold_the_truth']} intervals "
        f"hold the truth; the baseline moved by {found['baseline_moved']:.1%}; cautions: "
        f"{found['cautions'] or 'none'}.",
    ]


def show_run(folder: Path) -> list[str]:
    """The run's own report down to its front; of a run that was cut off, how far it came."""
    run = read_json(folder / "run.json")
    if run.get("result") is None:
        trials = folder / "trials.jsonl"
        number = len(trials.read_text().splitlines()) if trials.is_file() else 0
        return [f"No result yet; {number} trials are kept."]
    result = run["result"]
    outcome, trials = result["outcome"], result["trials"]
    said = f"Outcome: {outcome}, in {result['seconds']:.0f} s; trials: {trials}."
    sections = (folder / "report.md").read_text(encoding="utf-8").split("\n## ")
    kept = [one for one in sections if one.startswith(("The answer", "The front"))]
    return [said, *(f"\n### {one.strip()}" for one in kept)]
