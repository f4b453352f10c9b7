"""Five hundred comparisons of a model with itself per kind of noise, and a hundred planted ones.

Scripts stand in for models and clock, seeds are fixed: the shares are the same in every run.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import pytest

from tests.measure.fakes import FakeClock, baseline, candidate, noisy
from tokensearch.measure import TimingBudget, compare
from tokensearch.records.measurements import Caution, Comparison

TRIALS = 500
NOMINAL = 0.05
BUDGET = TimingBudget(warmup=0, first_look=30, max_rounds=38, seconds=60)
PATIENT = TimingBudget(warmup=0, first_look=30, max_rounds=400, seconds=60)

Script = Iterator[float]
Machine = Callable[[int], float]
Noise = Callable[[int], Script]


def skewed(seed: int) -> Script:
    return noisy(4.0, seed=seed, spread=0.03)


def two_speed(seed: int) -> Script:
    """Every other pass or so is a fifth slower."""
    random = np.random.default_rng(seed)
    while True:
        slow = random.random(64) < 0.5
        yield from (4.0 * (1 + 0.2 * slow + 0.01 * random.standard_normal(64))).tolist()


def interrupted(seed: int) -> Script:
    """One pass in ten takes up to three times as long."""
    random = np.random.default_rng(seed)
    while True:
        late = 1 + 2 * random.random(64) * (random.random(64) < 0.1)
        yield from (4.0 * late * np.exp(0.02 * random.standard_normal(64))).tolist()


def coarse(seed: int) -> Script:
    """The clock knows steps of one percent of a pass."""
    return (round(pass_ms / 0.04) * 0.04 for pass_ms in skewed(seed))


def wandering(seed: int) -> Machine:
    """A machine whose speed resembles that of the moment before: AR(1), 0.6, 4 %."""
    random = np.random.default_rng(seed)
    steps, level = 0.04 * 0.8 * random.standard_normal(1000), 0.0
    levels = [level := 0.6 * level + step for step in steps.tolist()]
    return lambda turn: float(np.exp(levels[turn]))


def steady_machine(seed: int) -> Machine:
    return lambda _: 1.0


def warming(seed: int) -> Machine:
    return lambda turn: 1 + 0.002 * turn


def throttled(seed: int) -> Machine:
    """A third slower from some turn on."""
    start = 20 + seed % 20
    return lambda turn: 1.35 if turn >= start else 1.0


def compared(
    noise: Noise,
    trial: int,
    *,
    ratio: float = 1.0,
    machine: Callable[[int], Machine] = steady_machine,
    budget: TimingBudget = BUDGET,
) -> Comparison:
    clock = FakeClock(
        machine=machine(trial),
        baseline=noise(2 * trial),
        candidate=(ratio * pass_ms for pass_ms in noise(2 * trial + 1)),
    )
    return compare(baseline, candidate, clock=clock, budget=budget, seed=trial)


@pytest.mark.parametrize(
    ("noise", "machine"),
    [
        (skewed, steady_machine),
        pytest.param(two_speed, steady_machine, marks=pytest.mark.slow),
        pytest.param(interrupted, steady_machine, marks=pytest.mark.long),
        pytest.param(coarse, steady_machine, marks=pytest.mark.slow),
        pytest.param(skewed, wandering, marks=pytest.mark.long),
    ],
)
def test_a_model_seldom_differs_from_itself(
    noise: Noise, machine: Callable[[int], Machine]
) -> None:
    found = [compared(noise, trial, machine=machine).verdict for trial in range(TRIALS)]

    assert (found.count("faster") + found.count("slower")) / TRIALS <= NOMINAL


@pytest.mark.parametrize("machine", [warming, pytest.param(throttled, marks=pytest.mark.long)])
def test_a_machine_that_changes_its_speed_does_not_make_a_difference(
    machine: Callable[[int], Machine],
) -> None:
    found = [compared(skewed, trial, machine=machine).verdict for trial in range(TRIALS)]

    assert (found.count("faster") + found.count("slower")) / TRIALS <= NOMINAL


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(0.98, "faster"), pytest.param(1.02, "slower", marks=pytest.mark.long)],
)
def test_two_percent_are_found_in_ninety_five_of_a_hundred(ratio: float, verdict: str) -> None:
    found = [compared(skewed, trial, ratio=ratio, budget=PATIENT).verdict for trial in range(100)]

    assert found.count(verdict) >= 95
    assert {"faster", "slower"} & set(found) == {verdict}


@pytest.mark.parametrize(
    ("machine", "caution"), [(warming, Caution.DRIFT), (throttled, Caution.THROTTLED)]
)
def test_a_difference_is_found_on_a_changing_machine_and_the_change_is_named(
    machine: Callable[[int], Machine], caution: Caution
) -> None:
    found = [compared(skewed, trial, ratio=0.9, machine=machine) for trial in range(100)]

    assert {one.verdict for one in found} <= {"faster", "ambiguous"}
    assert [one.verdict for one in found].count("faster") >= 60
    assert {len(one.cautions) for one in found} == {1}
    assert sum(one.cautions == (caution,) for one in found) >= 95


def late(seed: int) -> Script:
    """The first pass takes three times as long."""
    return chain([12.0], skewed(seed))


def test_a_slow_first_pass_is_named_and_makes_no_difference() -> None:
    found = [compared(late, trial) for trial in range(TRIALS)]

    assert {one.cautions for one in found} == {(Caution.SLOW_START,)}
    assert sum(one.verdict in ("faster", "slower") for one in found) / TRIALS <= NOMINAL


def test_quiet_comparisons_raise_no_doubt() -> None:
    assert {compared(skewed, trial).cautions for trial in range(100)} == {()}
