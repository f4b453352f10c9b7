from itertools import pairwise
from statistics import fmean, median

import pytest

from tests.costs.machine import (
    CELL,
    SPEC,
    SyntheticMachine,
    design,
    slope,
    table_of,
    treads,
    unseen,
)
from tokensearch.costs import CostTable
from tokensearch.costs.sweep import PASSES_PER_ROUND, run_sweep
from tokensearch.policy import Policy

# A median of k samples with relative noise s is off by 1.25 s / sqrt(k). A hundred passes split by
# six blocks give every one of 48 counts twelve samples of each half.
NOISE = 0.04
BOUND = 1.25 * NOISE / 12**0.5


def errors(table: CostTable, machine: SyntheticMachine) -> list[float]:
    """How far ratios of unseen schedules are off, relatively."""
    whole = machine.true_ms(Policy(SPEC))
    return [abs(table.ratio(policy) * whole / machine.true_ms(policy) - 1) for policy in unseen()]


@pytest.mark.parametrize("shape", [slope, treads])
def test_without_noise_every_unseen_schedule_is_predicted_exactly(shape) -> None:
    machine = SyntheticMachine(shape)

    table = table_of(machine, seconds=300)

    for policy in unseen():
        assert table.predict(policy) == pytest.approx(machine.true_ms(policy), rel=2e-3)


def test_curves_are_the_planted_costs_at_every_count() -> None:
    table = table_of(SyntheticMachine(treads), seconds=300)

    attention = table.curve("attention")

    assert attention.counts == tuple(range(1, 49))
    assert attention.ms == pytest.approx([2 + 0.8 * treads(count) for count in range(1, 49)])


def test_with_noise_unseen_schedules_are_predicted_within_it() -> None:
    machine = SyntheticMachine(treads, noise=NOISE)

    found = errors(table_of(machine), machine)

    assert fmean(found) < BOUND
    assert max(found) < 4 * BOUND


def test_the_order_of_schedules_is_predicted() -> None:
    machine = SyntheticMachine(slope, noise=NOISE)
    table = table_of(machine)

    apart = [policy for policy in unseen(60) if machine.true_ms(policy) < 400]
    ordered = sorted(apart, key=table.predict)
    steps = [machine.true_ms(policy) for policy in ordered]

    assert len(steps) > 10
    assert all(later > (1 - 4 * BOUND) * earlier for earlier, later in pairwise(steps))


def test_a_machine_that_becomes_half_as_fast_gives_the_same_ratios() -> None:
    steady = SyntheticMachine(treads, noise=NOISE)
    slowed = SyntheticMachine(treads, noise=NOISE, speed=lambda s: 1.0 if s < 20 else 2.0)

    found = errors(table_of(slowed), steady)

    assert fmean(found) < BOUND


def test_other_programs_that_interrupt_passes_move_predictions_little() -> None:
    machine = SyntheticMachine(slope, noise=NOISE, interrupted=0.1)
    quiet = SyntheticMachine(slope)

    parts = errors(table_of(machine), quiet)

    assert fmean(parts) < 2 * BOUND


def test_the_error_that_a_table_states_is_that_of_schedules_it_has_not_seen() -> None:
    machine = SyntheticMachine(slope, noise=NOISE)

    table = table_of(machine)

    stated, found = table.calibration.error, fmean(errors(table, machine))
    assert found / 2 < stated < NOISE  # it holds the noise of its own few passes too


def test_plain_passes_that_cost_more_than_their_parts_are_calibrated() -> None:
    machine = SyntheticMachine(slope, plain=lambda ms: 25 + 1.1 * ms)

    table = table_of(machine)

    assert table.calibration.fixed_ms == pytest.approx(25, rel=0.05)
    assert table.calibration.scale == pytest.approx(1.1, rel=0.01)
    assert max(errors(table, machine)) < 0.005


def test_what_noise_alone_would_fix_is_not_believed() -> None:
    fixed = [
        table_of(SyntheticMachine(slope, noise=NOISE, seed=seed)).calibration.fixed_ms
        for seed in range(3)
    ]

    assert median(map(abs, fixed)) < 0.01 * SyntheticMachine(slope).true_ms(Policy(SPEC))


def test_a_first_block_that_costs_more_has_a_factor_and_the_others_have_none() -> None:
    table = table_of(SyntheticMachine(slope, noise=NOISE, first_mlp=1.2))

    mlp, attention = table.curve("mlp").factors, table.curve("attention").factors

    assert mlp[0] == pytest.approx(1.2, rel=0.03)
    assert mlp[1:] == pytest.approx([1.0] * 5, abs=0.03)
    assert attention == pytest.approx([1.0] * 6, abs=0.03)


def test_a_sweep_ends_when_its_seconds_are_over() -> None:
    machine = SyntheticMachine(slope)

    table = table_of(machine, seconds=100.0)

    assert 100 <= table.seconds < 104
    assert table.passes == machine.passes - 3  # the first are not counted


def test_a_sweep_of_too_few_seconds_still_times_every_trial() -> None:
    table = table_of(SyntheticMachine(slope), seconds=0.1)

    assert [trial.passes for trial in table.calibration.trials] == [8, *[1] * 8]


def test_the_same_seed_gives_the_same_table() -> None:
    one, other = (table_of(SyntheticMachine(slope, noise=NOISE), seconds=15) for _ in range(2))

    assert one == other


def heard(seconds: float) -> list[tuple[int, int]]:
    """What a listener is told of a sweep: seconds done, of how many."""
    told: list[tuple[int, int]] = []

    class Watcher:
        def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
            told.append((done, total))

    machine = SyntheticMachine(slope)
    run_sweep(machine, design(), cell=CELL, seconds=seconds, seed=0, listener=Watcher())
    return told


def test_a_listener_hears_how_far_a_sweep_is() -> None:
    told = heard(60)

    assert told[-1] == (60, 60)
    assert told == sorted(told)


def test_a_listener_is_not_told_of_the_end_before_every_trial_was_timed() -> None:
    assert [done == total for done, total in heard(2)] == [False] * 7 + [True]


@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_too_short_for_every_operator_still_ends_in_a_table(seed: int) -> None:
    table = table_of(SyntheticMachine(slope), seconds=0, seed=seed)

    assert table.predict(Policy(SPEC)) > 0
    assert 1 < len(table.calibration.trials) <= 9


def test_a_few_rounds_are_enough_for_a_table_where_there_is_no_time_for_more() -> None:
    machine = SyntheticMachine(slope)

    table = run_sweep(machine, design(), cell=CELL, seconds=0.0, seed=0, least_rounds=4)

    assert table.passes == 4 * PASSES_PER_ROUND
    assert fmean(errors(table, machine)) < 0.2
