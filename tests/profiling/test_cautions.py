"""Profiles are doubted where their instruments contradict one another."""

from dataclasses import replace

import pytest

from tests.report.ledgers import baseline, operator
from tokensearch.profiling import profile_cautions
from tokensearch.profiling.profile import is_contradicted
from tokensearch.records.measurements import Caution, Conditions, Latency

PLAIN = Latency((26.0, 26.1, 25.9) * 12, warmup=3)


def test_stamps_that_cost_little_are_believed() -> None:
    assert not is_contradicted(baseline(plain=PLAIN))
    assert profile_cautions(baseline(plain=PLAIN), baseline(plain=PLAIN)) == ()


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_a_clock_that_says_another_thing_than_the_stamps_is_a_doubt(factor: float) -> None:
    off = Latency(tuple(factor * ms for ms in PLAIN.passes_ms), warmup=3)

    assert Caution.PROFILER_DISAGREES in profile_cautions(
        baseline(plain=PLAIN), baseline(plain=off)
    )


def test_kernels_cannot_take_longer_than_the_pass() -> None:
    def kernels(ms: float) -> bool:
        traced = (operator((0, "mlp"), "gemm", ms, kernel=True),)
        return is_contradicted(baseline(plain=PLAIN, operators=traced))

    assert not kernels(20.0)
    assert kernels(40.0)


def test_other_programs_are_named_when_both_ran_beside_them() -> None:
    busy = Conditions(tick_ms=1e-4, others=0.5)
    one = baseline(plain=PLAIN, conditions=busy)

    assert profile_cautions(one, one) == (Caution.BUSY,)
    assert profile_cautions(one, replace(one, session="another")) == ()


def test_a_gpu_whose_kernels_the_profiler_missed_is_a_doubt() -> None:
    launches = (operator((0, "mlp"), "aten::mm", 20.0),)
    one = baseline(plain=PLAIN, operators=launches, traced_ms=(30.0,))
    on_gpu = replace(one, cell=replace(one.cell, device="cuda"))
    seen = (*launches, operator((0, "mlp"), "gemm", 20.0, kernel=True))

    assert profile_cautions(on_gpu, on_gpu) == (Caution.NO_KERNELS,)
    assert profile_cautions(replace(on_gpu, operators=seen), replace(on_gpu, operators=seen)) == ()
    assert profile_cautions(replace(on_gpu, traced_ms=()), replace(on_gpu, traced_ms=())) == ()
    on_cpu = replace(one, cell=replace(one.cell, device="cpu"))
    assert profile_cautions(on_cpu, on_cpu) == ()
