"""From the passes of a sweep to a cost table. No torch: what was swept can be fitted anywhere."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import fmean, median

import numpy as np

from tokensearch.costs.curves import DISTINCT, Curve, Halves, fit_curve, robust_deviation
from tokensearch.costs.launch_queue import Launches, Path, fit_launch_terms
from tokensearch.costs.parts import CURVES, HEAD, OTHER, STEM, Part, parts_of
from tokensearch.costs.prices import Price, fit_price
from tokensearch.costs.table import Calibration, CheckedPrediction
from tokensearch.policy import Policy
from tokensearch.records.profile import Phase, Scope

# The baseline's speed at a round is the median of so many rounds on either side of it, and
# its own: one pass may be disturbed, five in a row are a machine that has changed its speed.
SPEED_REACH = 2
SPEED_FITS = 2  # of passes by curves, and curves by passes; a third changes nothing (measured)
# Of the slowest way by the scale of the parts, and of that by the way: a third changes nothing on a
# scripted machine. Plain passes and those behind a delay differ by some hundredths.
PATH_FITS = 3
LEAST_SCALE = 0.1  # of parts in plain passes: they differ by some hundredths, noise apart
SCALED_SD, SCALED_NOISE = 0.05, 0.01
DISTURBED = 3.0  # times as wide as usual: a spread within a pass that is not the machine's own

_HALVES: dict[str, frozenset[Phase]] = {
    "attention": frozenset({"attention", "bias"}),
    "scoring": frozenset({"scoring"}),
    "reducing": frozenset({"selecting", "gathering", "merging"}),
    "mlp": frozenset({"mlp"}),
}


@dataclass(frozen=True, slots=True)
class SplitPass:
    """One pass, split."""

    policy: Policy
    floor: bool
    parts_ms: Mapping[Scope, float]


@dataclass(frozen=True, slots=True)
class Round:
    """What was run in turn: the baseline first, by which the rest is judged."""

    baseline_ms: float
    splits: tuple[SplitPass, ...]
    trial: tuple[Policy, float]  # a whole pass of a schedule that serves calibration alone
    launches: tuple[tuple[Policy, float], ...] = ()  # host's time for plain passes, its first


Sample = tuple[Part, float]  # part of a pass, milliseconds


def level_rounds(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds as if the machine had run at one speed, that of the median baseline."""
    baselines = [round_.baseline_ms for round_ in rounds]
    usual = median(baselines)
    levelled = []
    for round_, near in zip(rounds, _nearby(baselines), strict=True):
        factor = usual / near
        splits = tuple(
            SplitPass(it.policy, it.floor, {at: ms * factor for at, ms in it.parts_ms.items()})
            for it in round_.splits
        )
        policy, ms = round_.trial
        levelled.append(
            Round(round_.baseline_ms * factor, splits, (policy, ms * factor), round_.launches)
        )
    return levelled


def _nearby(baselines: Sequence[float]) -> Iterator[float]:
    """Yield the median of each baseline and of those around it."""
    for index in range(len(baselines)):
        yield median(baselines[max(0, index - SPEED_REACH) : index + SPEED_REACH + 1])


def samples_of(split: SplitPass) -> Iterator[Sample]:
    """Give every part of a pass its time. A block that holds two of a kind gives neither."""
    times: dict[tuple[int | None, str], float] = defaultdict(float)
    for (block, phase), ms in split.parts_ms.items():
        times[None if phase in {"stem", "head"} else block, _half(phase)] += ms
    times[None, OTHER] = sum(ms for (_, half), ms in times.items() if half == OTHER)
    parts = list(parts_of(split.policy, floor=split.floor))
    scopes = [(part.block, _kind(part)) for part in parts]
    for part, scope in zip(parts, scopes, strict=True):
        if scope in times and scopes.count(scope) == 1:
            yield part, times[scope]


def _half(phase: Phase) -> str:
    return next((half for half, phases in _HALVES.items() if phase in phases), phase)


def _kind(part: Part) -> str:
    if part.name in {STEM, HEAD, OTHER}:
        return part.name
    return "scoring" if part.name.startswith("score ") else part.half


def fit_costs(
    rounds: Sequence[Round], *, blocks: int
) -> tuple[tuple[Curve, ...], tuple[Price, ...]]:
    """Fit curves to the halves of blocks, and prices to all other parts.

    The speed of every single pass is found along with them: rounds are seconds long, and a machine
    changes faster.
    """
    passes = [tuple(samples_of(split)) for one in rounds for split in one.splits]
    for _ in range(SPEED_FITS):
        passes = _level_speeds(passes, _curves(passes, blocks))
    curves = _curves(passes, blocks)
    rest = _by_name(passes, lambda name: name not in CURVES)
    return tuple(curves.values()), tuple(_price(*found) for found in sorted(rest.items()))


def _level_speeds(
    passes: Sequence[Sequence[Sample]], curves: Mapping[str, Curve]
) -> list[tuple[Sample, ...]]:
    """Divide each pass by how slow it was, and leave out those that others interrupted.

    Those were slow here and fast there.
    """
    counts = range(1 + max(part.n_in for samples in passes for part, _ in samples))
    usual_ms = {name: [one.of(count) for count in counts] for name, one in curves.items()}

    def against(part: Part, ms: float) -> float:
        return ms / usual_ms[part.name][part.n_in] / curves[part.name].factors[part.block or 0]

    ratios = [
        np.array([against(part, ms) for part, ms in samples if part.name in CURVES])
        for samples in passes
    ]
    slow, spreads = (
        [float(np.median(own)) for own in ratios],
        [robust_deviation(own) for own in ratios],
    )
    usual = median(spreads)
    return [
        tuple((part, ms / factor) for part, ms in samples)
        for samples, factor, wide in zip(passes, slow, spreads, strict=True)
        if wide <= DISTURBED * usual
    ]


def _curves(passes: Sequence[Sequence[Sample]], blocks: int) -> dict[str, Curve]:
    samples_by_name = _by_name(passes, lambda name: name in CURVES)
    return {
        name: fit_curve(name, _halves(samples), blocks=blocks)
        for name, samples in samples_by_name.items()
    }


def _by_name(
    passes: Sequence[Sequence[Sample]], wanted: Callable[[str], bool]
) -> dict[str, list[Sample]]:
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for part, ms in chain.from_iterable(passes):
        if wanted(part.name):
            by_name[part.name].append((part, ms))
    return by_name


def _halves(samples: Iterable[Sample]) -> Halves:
    return Halves(*zip(*((part.block, part.n_in, ms) for part, ms in samples), strict=True))


def _price(name: str, samples: Sequence[Sample]) -> Price:
    counts = np.array([(part.n_in, part.n_out) for part, _ in samples])
    return fit_price(name, counts[:, 0], counts[:, 1], np.array([ms for _, ms in samples]))


def fit_launches(rounds: Sequence[Round]) -> Launches | None:
    """Fit what the host takes to enqueue parts; None where nothing is enqueued."""
    if not all(round_.launches for round_ in rounds):
        return None
    baselines = [round_.launches[0][1] for round_ in rounds]
    usual = median(baselines)
    return fit_launch_terms(
        [
            (policy, ms * usual / near)
            for round_, near in zip(rounds, _nearby(baselines), strict=True)
            for policy, ms in round_.launches[1:]
        ],
        usual,
    )


def fit_calibration(
    path: Callable[[Policy, float], Path], rounds: Sequence[Round], whole: Policy
) -> Calibration:
    """Fit plain passes of the trials, and of the baseline, to what their parts come to.

    The error is of ratios to the baseline, each by the calibration of all other trials:
    what a new schedule has to expect.
    """
    timed: dict[Policy, list[float]] = {whole: [round_.baseline_ms for round_ in rounds]}
    for round_ in rounds:
        timed.setdefault(round_.trial[0], []).append(round_.trial[1])
    fixed_ms, scale = 0.0, 1.0
    for _ in range(PATH_FITS):
        trials = [_trial(policy, path(policy, scale), ms) for policy, ms in timed.items()]
        fixed_ms, scale = fit_line(trials)
    errors = [_left_out(trials, scope) for scope in range(1, len(trials))]
    return Calibration(fixed_ms, scale, tuple(trials), fmean(errors), max(errors))


def _trial(policy: Policy, path: Path, ms: Sequence[float]) -> CheckedPrediction:
    return CheckedPrediction(
        policy.schedule_hash, path.device_ms, float(median(ms)), len(ms), path.host_ms
    )


def _left_out(trials: Sequence[CheckedPrediction], index: int) -> float:
    """Relative error of one trial's ratio, by what the others say."""
    fixed_ms, scale = fit_line([*trials[:index], *trials[index + 1 :]])
    whole, share = (
        (fixed_ms + it.launches_ms + scale * it.parts_ms) / it.measured_ms
        for it in (trials[0], trials[index])
    )
    return abs(share / whole - 1)


def fit_line(trials: Sequence[CheckedPrediction]) -> tuple[float, float]:
    """Least squares of relative residuals, each trial as often as its passes are many.

    A fixed cost is believed when noise is not likely to have found it. Where launches take most of
    every trial, they say nothing of the parts, which are then believed as they were measured; so
    they are where no scale of at least LEAST_SCALE fits, with a fixed cost or without.
    """
    weight = np.sqrt([one.passes for one in trials])
    ones = weight / [one.measured_ms for one in trials]
    parts = ones * [one.parts_ms for one in trials]
    wanted = weight - ones * [one.launches_ms for one in trials]
    held = (SCALED_NOISE / SCALED_SD) ** 2 if any(one.launches_ms for one in trials) else 0.0
    rows = np.stack([ones, parts], axis=1)
    square = rows.T @ rows + np.diag([0.0, held])
    coefficients = np.linalg.pinv(square) @ (rows.T @ wanted + [0.0, held])
    noise = np.square(wanted - rows @ coefficients).sum() / max(1, len(trials) - 2)
    error = np.sqrt(noise * np.linalg.pinv(square)[0, 0])
    fixed_ms = float(coefficients[0]) if abs(coefficients[0]) > DISTINCT * error else 0.0
    for fixed in dict.fromkeys((fixed_ms, 0.0)):
        scale = float((parts @ (wanted - fixed * ones) + held) / (parts @ parts + held))
        if scale >= LEAST_SCALE:
            return fixed, scale
    return 0.0, 1.0
