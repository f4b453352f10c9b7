"""Each doubt is raised by what it is about, and by nothing else."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.measure.fakes import noisy
from tokensearch.measure import (
    add_self_comparison_caution,
    compare_samples,
    deciding_cautions,
    find_cautions,
)
from tokensearch.measure.cautions import has_drift, has_speed_step
from tokensearch.records.measurements import Caution, Comparison, Conditions, Latency

PASSES = 60
QUIET = Conditions(tick_ms=1e-4, others=0.01)


def passes(script: list[float]) -> Latency:
    return Latency(tuple(script), warmup=0)


CALM = passes([4.0, 4.02] * 20)


def around(change: Callable[[float], float], *, seed: int, spread: float = 0.02) -> list[float]:
    """Noisy passes whose time `change` decides, by the share of the passes gone by."""
    script = noisy(4.0, seed=seed, spread=spread)
    return [next(script) * change(number / PASSES) for number in range(PASSES)]


def raised(change: Callable[[float], float], *, spread: float = 0.02) -> set[Caution]:
    """Cautions of twenty comparisons, whose models are both changed alike."""
    sides = [
        [passes(around(change, seed=2 * trial + side, spread=spread)) for side in (0, 1)]
        for trial in range(20)
    ]
    found = [find_cautions(*pair, QUIET) for pair in sides]
    assert all(one == found[0] for one in found)
    return set(found[0])


def test_calm_passes_raise_no_doubt() -> None:
    assert find_cautions(CALM, CALM, QUIET) == ()


def test_plain_noise_raises_no_doubt() -> None:
    assert raised(lambda _: 1.0, spread=0.03) == set()


def test_a_slow_first_pass_is_reported() -> None:
    slow = passes([9.0, *CALM.passes_ms])

    assert find_cautions(slow, CALM) == (Caution.SLOW_START,)
    assert find_cautions(CALM, slow) == (Caution.SLOW_START,)


def test_a_wide_spread_is_reported() -> None:
    assert find_cautions(CALM, passes([4.0, 5.0] * 20)) == (Caution.WIDE_SPREAD,)


def test_passes_of_two_speeds_are_a_wide_spread_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        both = 4.0 * (1 + 0.2 * (random.random((2, PASSES)) < 0.5))
        noise = 1 + 0.005 * random.standard_normal((2, PASSES))

        found = find_cautions(*(passes(side) for side in (both * noise).tolist()), QUIET)

        assert found == (Caution.WIDE_SPREAD,)


@pytest.mark.parametrize("rise", [0.08, 0.2, -0.15])
def test_a_line_is_drift_and_no_step(rise: float) -> None:
    assert raised(lambda gone: 1 + rise * gone, spread=0.01) == {Caution.DRIFT}


@pytest.mark.parametrize("at", [0.28, 0.5, 0.71])
@pytest.mark.parametrize("step", [0.10, 0.35, -0.2])
def test_a_change_of_speed_is_a_step_and_no_drift(at: float, step: float) -> None:
    assert raised(lambda gone: 1 + step * (gone >= at)) == {Caution.THROTTLED}


def test_clocks_that_fall_and_recover_are_a_step() -> None:
    assert raised(lambda gone: 1 + 0.2 * (0.33 <= gone < 0.68)) == {Caution.THROTTLED}


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.1])
def test_noise_seldom_passes_for_drift_or_a_step(spread: float) -> None:
    scripts = [noisy(4.0, seed=seed, spread=spread) for seed in range(200)]
    samples = [[next(script) for _ in range(30)] for script in scripts]

    assert sum(has_drift(sample) for sample in samples) <= 2  # 1 %
    assert sum(has_speed_step(sample) for sample in samples) <= 2


def test_too_few_passes_neither_drift_nor_step() -> None:
    assert not has_drift([1.0, 2.0, 3.0, 4.0, 5.0])
    assert not has_speed_step([1.0] * 8 + [2.0] * 8)


def test_few_passes_are_reported() -> None:
    assert find_cautions(passes([4.0] * 29), CALM) == (Caution.FEW_PASSES,)


@pytest.mark.parametrize(("passes_each", "decides"), [(11, True), (12, False), (29, False)])
def test_few_passes_decide_nothing_only_where_they_carry_no_verdict(
    passes_each: int, *, decides: bool
) -> None:
    few = passes([4.0] * passes_each)
    comparison = compare_samples(few, few, seed=0)

    assert comparison.cautions == (Caution.FEW_PASSES,)
    assert bool(deciding_cautions(comparison)) == decides


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (Conditions(tick_ms=1e-4, others=0.3), (Caution.BUSY,)),
        (Conditions(tick_ms=1e-4, others=0.0, gpu_processes=1), (Caution.BUSY,)),
        (Conditions(tick_ms=0.05, others=None), (Caution.COARSE_CLOCK,)),
        (Conditions(tick_ms=1e-4, others=None, gpu_clock=0.2), ()),  # low, but not slowed down
        (Conditions(tick_ms=1e-4, others=None, gpu_throttled=("power",)), (Caution.THROTTLED,)),
        (Conditions(tick_ms=1e-4, others=None), ()),
        (Conditions(1e-4, 0.05, gpu_clock=0.9, gpu_temperature_c=85, gpu_processes=0), ()),
    ],
)
def test_the_state_of_the_machine_raises_doubts(
    conditions: Conditions, expected: tuple[Caution, ...]
) -> None:
    assert find_cautions(CALM, CALM, conditions) == expected


def compared(verdict: str) -> Comparison:
    return Comparison(CALM, CALM, 1.0, 0.9, 1.1, 0.95, verdict, (Caution.DRIFT,))  # type: ignore[arg-type]


@pytest.mark.parametrize("verdict", ["faster", "slower"])
def test_a_model_that_differs_from_itself_is_reported(verdict: str) -> None:
    assert add_self_comparison_caution(compared(verdict)).cautions == (
        Caution.DRIFT,
        Caution.UNLIKE_ITSELF,
    )


@pytest.mark.parametrize("verdict", ["same", "ambiguous"])
def test_a_model_that_is_like_itself_is_no_reason_for_doubt(verdict: str) -> None:
    assert add_self_comparison_caution(compared(verdict)) == compared(verdict)


@pytest.mark.parametrize("caution", Caution)
def test_every_caution_says_what_to_do_in_one_sentence(caution: Caution) -> None:
    what, remedy = caution.value.split(": ")

    assert what
    assert remedy
    assert "." not in caution.value
