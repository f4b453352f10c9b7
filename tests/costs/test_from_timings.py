from functools import cache
from random import Random
from statistics import fmean

import numpy as np
import pytest

from tests.costs.queue_machine import SPEC, QueueMachine, front_like
from tokensearch.costs.forecast import MACS_ERROR, forecast_from_timings
from tokensearch.policy import Policy, Prune, mac_share
from tokensearch.search import load_space
from tokensearch.search.latency_model import draw_policies, pick_mild_to_deep

NODE_US = 1.8  # of a replayed graph, in the place of a launch
SPACE = load_space("default").fitting(SPEC, scored=True, prefix_read=True)
# The most and the least bound by launches; those between them are long.
MACHINES = pytest.mark.parametrize(
    "machine",
    [
        pytest.param(
            QueueMachine(batch, launch_us=us),
            marks=[] if (batch, us) in {(1, 6.0), (64, NODE_US)} else pytest.mark.long,
        )
        for batch in (1, 8, 64)
        for us in (6.0, NODE_US)
    ],
    ids=lambda one: f"batch {one.batch}, {one.launch_us} us",
)


def learned(machine: QueueMachine, seed: int):
    return forecast_from_timings(
        [(policy, machine.ratio(policy)) for policy in draw_policies(SPACE, SPEC, seed)]
    )


@cache
def errors(batch: int, launch_us: float, seed: int) -> tuple[list[float], float]:
    """How far ratios of front-like schedules are off after eight timings, and the margin."""
    machine = QueueMachine(batch, launch_us=launch_us)
    forecast = learned(machine, seed)
    off = [abs(forecast.ratio(one) / machine.ratio(one) - 1) for one in front_like()]
    return off, forecast.margin


@MACHINES
def test_eight_timings_say_more_than_multiply_accumulates(machine: QueueMachine) -> None:
    fronts = front_like()
    by_macs = fmean(abs(mac_share(one) / machine.ratio(one) - 1) for one in fronts)

    for seed in range(4):
        off, _ = errors(machine.batch, machine.launch_us, seed)
        assert fmean(off) < by_macs / 2


@MACHINES
def test_the_margin_after_eight_timings_covers_most_errors(machine: QueueMachine) -> None:
    covered = []
    for seed in range(6):
        off, margin = errors(machine.batch, machine.launch_us, seed)
        covered += [one <= margin for one in off]

    assert np.mean(covered) >= 0.8


def test_what_is_launch_bound_is_not_thought_fast() -> None:
    machine, policy = QueueMachine(1), Policy(SPEC, (Prune(0, 20),))

    assert mac_share(policy) < 0.2
    assert machine.ratio(policy) > 1
    assert learned(machine, 0).ratio(policy) == pytest.approx(machine.ratio(policy), rel=0.1)


def test_schedules_to_time_are_of_the_space_and_from_mild_to_deep() -> None:
    found = draw_policies(SPACE, SPEC, 0)

    shares = [mac_share(policy) for policy in found]
    assert len(found) == 8
    assert (max(shares), min(shares)) == pytest.approx((0.9, 0.2), abs=0.12)
    assert all(SPACE.build(SPACE.nearest(one, SPEC), SPEC) == one for one in found)
    assert {step.op for policy in found for step in policy.steps} == {"prune", "pool"}


def test_of_known_policies_both_ends_are_timed_first() -> None:
    policies = [Policy(SPEC, (Prune(1, keep),)) for keep in range(10, 190, 4)]
    Random(0).shuffle(policies)

    keeps = [one.steps[0].keep for one in pick_mild_to_deep(policies)]

    assert keeps[:2] == [10, 186]
    assert len(keeps) == 8


def test_of_three_timings_nothing_is_learned() -> None:
    forecast = forecast_from_timings(
        [(Policy(SPEC, (Prune(1, keep),)), 0.9) for keep in (20, 80, 150)]
    )

    assert forecast.ratio(Policy(SPEC, (Prune(1, 50),))) == mac_share(Policy(SPEC, (Prune(1, 50),)))
    assert forecast.error == MACS_ERROR
