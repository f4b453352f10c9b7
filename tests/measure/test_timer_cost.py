"""What a border adds to a pass is measured, and taken off what was split."""

import math
from collections.abc import Callable

import pytest
import torch

from tests.measure.gpu import FakeGpu, installed
from tokensearch.measure import PhaseTimer, phase_border_ms, subtract_timer_cost, timer_cost_ms
from tokensearch.measure import timer_cost as ours

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., float]:
    """The price on a scripted GPU, whose memory is the host's."""

    def price(gpu: FakeGpu, *, captured: bool) -> float:
        monkeypatch.setattr(ours.torch, "zeros", lambda *shape, device: torch.ones(*shape))
        with installed(gpu, monkeypatch):
            return phase_border_ms(GPU, captured=captured)

    return price


def test_where_the_gpu_waits_a_border_costs_what_the_host_spends(
    priced: Callable[..., float],
) -> None:
    assert priced(FakeGpu(border_ms=(0.002, 0.004)), captured=False) == pytest.approx(
        0.003, rel=0.03
    )


def test_where_the_gpu_is_behind_a_border_costs_nothing(priced: Callable[..., float]) -> None:
    slow = FakeGpu(kernel_ms=lambda out: 0.5)

    assert priced(slow, captured=False) < 0.0001


def test_in_a_graph_a_border_costs_a_node(priced: Callable[..., float]) -> None:
    assert priced(FakeGpu(node_ms=0.0015), captured=True) == pytest.approx(0.0015)


def test_on_a_real_cpu_a_border_has_a_price_that_is_no_gain() -> None:
    assert 0 <= phase_border_ms(CPU) < math.inf


def test_no_more_is_taken_off_than_a_pass_took_longer_nor_than_the_price() -> None:
    assert timer_cost_ms(0.2, borders=100, most_ms=0.003) == 0.002
    assert timer_cost_ms(0.9, borders=100, most_ms=0.003) == 0.003
    assert timer_cost_ms(-0.1, borders=100, most_ms=0.003) == 0.0
    assert timer_cost_ms(0.2, borders=0, most_ms=0.003) == 0.0


def test_parts_pay_for_the_borders_between_them_and_their_neighbours() -> None:
    stamps = PhaseTimer(CPU)

    def run() -> None:
        with stamps.around(0, "attention"), stamps.around(0, "qkv"):
            pass
        with stamps.around(0, "mlp"):
            pass

    stamps.split(run)

    assert stamps.shares() == {
        (None, "stem"): 0.5,
        (0, "attention"): 2,  # before and after what is nested
        (0, "qkv"): 1,
        (None, "other"): 1,
        (0, "mlp"): 1,
        (None, "head"): 0.5,
    }
    assert sum(stamps.shares().values()) == len(stamps.borders)


def test_a_pass_that_is_not_split_has_no_borders_to_pay() -> None:
    stamps = PhaseTimer(CPU)
    stamps.split(lambda: None)

    assert stamps.shares() == {(None, "other"): 0}


def test_a_part_that_is_all_price_took_no_time() -> None:
    parts = {(0, "mlp"): 2.0, (0, "norm"): 0.002}

    found = subtract_timer_cost(parts, {(0, "mlp"): 2.0, (0, "norm"): 1.0}, border_ms=0.003)

    assert found == {(0, "mlp"): pytest.approx(1.994), (0, "norm"): 0.0}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_real_gpu_a_border_has_a_price() -> None:
    assert 0 < phase_border_ms(GPU) < math.inf
    assert 0 <= phase_border_ms(GPU, captured=True) < math.inf
