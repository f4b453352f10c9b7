"""Which operators changed, and what two traces differ in, in sentences."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tokensearch.chrome import ChromeTrace
from tokensearch.diff.operators import OperatorChange
from tokensearch.records.profile import Operator, Profile
from tokensearch.report import text
from tokensearch.report.table import ReportTable

SHOWN = 20  # rows of a table: what is below is hardly ever worth a look
UNTESTED = "not testable: one step"
LONGEST = 48  # characters of a name; kernels of templates have hundreds


def change_table(changes: Sequence[OperatorChange]) -> ReportTable:
    """The largest changes, with what became of each; times are per pass or step."""
    rows = [
        (
            shorten_name(change.name),
            "kernel" if change.kernel else "operator",
            UNTESTED if change.change == "untested" else change.change,
            f"{text.count(round(change.baseline_calls))} → "
            f"{text.count(round(change.candidate_calls))}",
            text.ms(change.baseline_ms) if change.baseline_ms else text.NONE,
            text.ms(change.candidate_ms) if change.candidate_ms else text.NONE,
            _difference(change),
        )
        for change in changes[:SHOWN]
    ]
    columns = ("name", "kind", "change", "calls", "before", "after", "difference")
    return ReportTable(columns, rows, numbers=frozenset(columns[3:]))


def _difference(change: OperatorChange) -> str:
    """A change with its interval, which of a single pass says nothing."""
    said = text.signed_ms_interval(change.ms)
    return said.partition(" [")[0] if change.passes < 2 else said


def change_document(changes: Iterable[OperatorChange], names: Sequence[str]) -> dict[str, Any]:
    """The same for a program, complete."""
    return {
        "baseline": names[0],
        "candidate": names[1],
        "operators": [{**asdict(change), "change": change.change} for change in changes],
    }


def operator_table(operators: Iterable[Operator], *, whole_ms: float) -> ReportTable:
    """What took longest of a traced pass, over all blocks."""
    sums: dict[tuple[str, bool], tuple[float, float]] = {}
    for item in operators:
        calls, ms = sums.get((item.name, item.kernel), (0.0, 0.0))
        sums[item.name, item.kernel] = (calls + item.calls, ms + item.ms)
    longest = sorted(sums.items(), key=lambda entry: -entry[1][1])[:SHOWN]
    rows = [
        (
            shorten_name(name),
            "kernel" if kernel else "operator",
            text.count(round(often)),
            text.ms(ms),
            text.percent(ms / whole_ms),
        )
        for (name, kernel), (often, ms) in longest
    ]
    columns = ("name", "kind", "calls", "own time", "of a traced pass")
    return ReportTable(columns, rows, numbers=frozenset(columns[2:]))


def shorten_name(name: str) -> str:
    """A name that fits a table."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


Traced = ChromeTrace | Profile

# What a pass of a plain Vision Transformer calls as often whatever its policy: once, and twice a
# block and once more.
STEADY = ("aten::conv2d", "aten::layer_norm")


def trace_sentences(
    sides: Sequence[Traced], names: Sequence[str], changes: Sequence[OperatorChange]
) -> tuple[str, ...]:
    """Return how long a step takes in both, what changed most, and what keeps them apart."""
    return (
        _headline(sides, names, changes),
        *_devices(sides, names),
        *_steps(sides, names),
        *_calls_apart(sides, names),
        *_unnamed(sides, names),
    )


def _headline(
    sides: Sequence[Traced], names: Sequence[str], changes: Sequence[OperatorChange]
) -> str:
    before, after = (median(_steps_ms(side)) for side in sides)
    ratio = f", {text.ratio(after / before)}" if before else ""  # a file may hold empty steps
    return (
        f"{names[1]} takes {text.ms(after)} a step under the profiler, {names[0]} "
        f"{text.ms(before)}{ratio}; {_largest(changes[0])}."
    )


def _largest(change: OperatorChange) -> str:
    sign = "+" if change.ms.value > 0 else "-"
    by = f"{sign}{text.ms(abs(change.ms.value))}"
    match change.change:
        case "same":
            return "no operator has changed significantly"
        case "untested":
            name = shorten_name(change.name)
            return f"the largest change: {name}, {by}, which one step cannot prove"
        case known:
            return f"the largest change: {shorten_name(change.name)} {known}, {by}"


def _steps_ms(side: Traced) -> tuple[float, ...]:
    return side.traced_ms if isinstance(side, Profile) else side.passes_ms


def _devices(sides: Sequence[Traced], names: Sequence[str]) -> Iterator[str]:
    devices = [_device(side) for side in sides]
    if devices[0] != devices[1]:
        ran = [f"{name} ran on {device}" for name, device in zip(names, devices, strict=True)]
        yield f"The devices differ: {' and '.join(ran)}."


def _device(side: Traced) -> str:
    """Name what ran the kernels, or the host where there are none."""
    if not any(one.kernel for one in side.operators):
        return "the host alone"
    if isinstance(side, Profile):
        return side.cell.machine.name
    return " and ".join(side.devices) or "a device that it does not name"


def _steps(sides: Sequence[Traced], names: Sequence[str]) -> Iterator[str]:
    for side, name in zip(sides, names, strict=True):
        if isinstance(side, ChromeTrace) and not side.stepped:
            yield f"{name} marks no steps, so all of it counts as one."


def _calls_apart(sides: Sequence[Traced], names: Sequence[str]) -> Iterator[str]:
    """Calls that differ as another number of passes or another model makes them differ."""
    before, after = (_calls(side) for side in sides)
    ratios = {
        round(after[name] / before[name], 3) for name in STEADY if before[name] and after[name]
    }
    if len(ratios) > 1:
        each = [f"{name} {_often(before, name)} against {_often(after, name)}" for name in STEADY]
        yield f"Their models differ, by what they call in a step: {text.listed(each)}."
    elif ratios and ratios != {1.0}:
        many, few = names if min(ratios) < 1 else (names[1], names[0])
        times = max(*ratios, *(1 / ratio for ratio in ratios))
        yield (
            f"A step of {many} calls all {text.three_digits(times)} times as often as one of "
            f"{few}: it holds another number of passes, so times of a step are not of equal work."
        )


def _calls(side: Traced) -> Mapping[str, float]:
    calls = dict.fromkeys(STEADY, 0.0)
    for operator in side.operators:
        if operator.name in calls:
            calls[operator.name] += operator.calls
    return calls


def _often(calls: Mapping[str, float], name: str) -> str:
    return text.count(round(calls[name]))


def _unnamed(sides: Sequence[Traced], names: Sequence[str]) -> Iterator[str]:
    for side, name, other in zip(sides, names, reversed(names), strict=True):
        if isinstance(side, Profile):
            yield (
                f"{other} names neither its model nor its batch: see that they are {side.model} "
                f"and {side.cell.batch}, as of {name}."
            )
