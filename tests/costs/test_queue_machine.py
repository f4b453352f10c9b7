import numpy as np
import pytest

from tests.costs.queue_machine import LAUNCH_US, SPEC, QueueMachine, ended
from tokensearch.policy import Policy, Pool, preset

NONE = Policy(SPEC)


def test_the_device_waits_for_the_host_and_launches_hide_behind_heavy_operators() -> None:
    host, device = np.array([6.0, 6.0, 6.0, 6.0]), np.array([1.0, 20.0, 1.0, 1.0])

    assert ended(host, device).tolist() == [7.0, 32.0, 33.0, 34.0]


# Counted in the real model (timm's DeiT-S): what is no view.
@pytest.mark.parametrize(
    ("name", "operators"), [("none", 163), ("topk-0.7", 205), ("tome-r13", 487)]
)
def test_passes_have_about_as_many_operators_as_the_real_models(name: str, operators: int) -> None:
    found = QueueMachine(8).operators(preset(name, SPEC))

    assert found == pytest.approx(operators, rel=0.02)


def test_three_pools_have_about_as_many_operators_as_in_the_real_model() -> None:
    pools = tuple(Pool(block, 140 - 10 * block) for block in (3, 6, 9))

    assert QueueMachine(8).operators(Policy(SPEC, pools)) == pytest.approx(250, rel=0.08)


def test_a_lone_image_takes_as_long_as_its_launches() -> None:
    machine = QueueMachine(1)

    assert machine.true_ms(NONE) == pytest.approx(163 * LAUNCH_US / 1000, rel=0.01)


def test_the_launches_of_a_large_batch_hide() -> None:
    fast, slow = (QueueMachine(64, launch_us=us).true_ms(NONE) for us in (1.0, LAUNCH_US))

    assert slow == pytest.approx(fast, rel=0.02)


def test_the_parts_of_a_split_pass_add_up_to_more_than_a_plain_one() -> None:
    machine = QueueMachine(1, noise=0.0, delayed=False)

    parts = machine.split_ms(NONE, floor=False)

    assert sum(parts.values()) > 1.2 * machine.whole_ms(NONE)  # events are launched as well
