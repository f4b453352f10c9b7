"""What two traces say of each other, in sentences; a profile is a trace whose model is known."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from tokensearch.chrome import ChromeTrace
from tokensearch.operator_changes import OperatorChange
from tokensearch.profiles import Profile
from tokensearch.report import text
from tokensearch.report.operators import short

Traced = ChromeTrace | Profile

# What a pass of a plain Vision Transformer calls as often whatever its policy: once, and twice a
# block and once more.
STEADY = ("aten::conv2d", "aten::layer_norm")


def trace_words(
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
            return "no operator is proven to have changed"
        case "untested":
            return f"the largest change: {short(change.name)}, {by}, which one step cannot prove"
        case known:
            return f"the largest change: {short(change.name)} {known}, {by}"


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
            f"A step of {many} calls all {text.significant(times)} times as often as one of {few}: "
            "it holds another number of passes, so times of a step are not of the same work."
        )


def _calls(side: Traced) -> Mapping[str, float]:
    calls = dict.fromkeys(STEADY, 0.0)
    for one in side.operators:
        if one.name in calls:
            calls[one.name] += one.calls
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
