"""Baseline and candidate are timed in turn until the ratio is known, and no longer."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat

import pytest

from tests.measure.fakes import FakeClock, baseline, candidate, noisy, steady
from tokensearch.errors import MeasurementError
from tokensearch.measure import TimingBudget, WallClock, compare
from tokensearch.records.measurements import Caution, Comparison

BUDGET = TimingBudget(warmup=0, max_rounds=40, seconds=60, precision=0.01)
WHOLE = replace(BUDGET, precision=1e-9)  # never precise enough: all 40 pairs are taken


def compared(
    baseline_ms: Iterator[float],
    candidate_ms: Iterator[float],
    *,
    budget: TimingBudget = BUDGET,
    seed: int = 0,
) -> tuple[Comparison, FakeClock]:
    clock = FakeClock(baseline=baseline_ms, candidate=candidate_ms)
    return compare(baseline, candidate, clock=clock, budget=budget, seed=seed), clock


def verdicts(ratio: float, *, trials: int) -> list[str]:
    return [
        compared(noisy(4.0, seed=2 * t), noisy(4.0 * ratio, seed=2 * t + 1), seed=t)[0].verdict
        for t in range(trials)
    ]


def test_equal_models_seldom_get_a_false_verdict() -> None:
    found = verdicts(1.0, trials=200)

    assert sum(one in ("faster", "slower") for one in found) / len(found) <= 0.05


def test_a_difference_of_five_percent_is_found() -> None:
    found = verdicts(0.95, trials=40)

    assert found.count("faster") >= 36  # 90 %
    assert "slower" not in found


def test_turns_are_taken_in_both_orders() -> None:
    _, clock = compared(steady(), steady(), budget=WHOLE)

    pairs = list(zip(clock.turns[::2], clock.turns[1::2], strict=True))
    assert set(pairs) == {("baseline", "candidate"), ("candidate", "baseline")}


def test_times_are_kept_in_the_order_taken_and_under_the_right_name() -> None:
    comparison, _ = compared(iter(range(1, 41)), iter(range(101, 141)), budget=WHOLE)

    assert comparison.baseline.passes_ms == tuple(range(1, 41))
    assert comparison.candidate.passes_ms == tuple(range(101, 141))
    assert comparison.ratio == 120.5 / 20.5


def test_warm_up_passes_are_not_counted() -> None:
    budget = replace(WHOLE, warmup=6)
    script = [99.0] * 6 + [4.0] * 40

    comparison, _ = compared(iter(script), iter(script), budget=budget)

    assert comparison.baseline.warmup == comparison.candidate.warmup == 6
    assert set(comparison.baseline.passes_ms) == {4.0}


def test_warm_up_goes_on_while_passes_get_faster() -> None:
    budget = replace(BUDGET, warmup=6)
    cooling = chain([4.0 * 0.9**number for number in range(12)], repeat(1.0))

    comparison, _ = compared(steady(), cooling, budget=budget)

    assert 12 < comparison.candidate.warmup <= 30


def test_warm_up_ends_though_passes_never_settle() -> None:
    budget = replace(BUDGET, warmup=4)

    comparison, _ = compared(steady(change=lambda n: 0.9**n), steady(), budget=budget)

    assert comparison.baseline.warmup == 20


def test_timing_stops_when_the_interval_is_narrow_enough() -> None:
    comparison, _ = compared(steady(), steady())

    assert len(comparison.baseline.passes_ms) == BUDGET.min_rounds
    assert comparison.high - comparison.low <= 2 * BUDGET.precision
    assert comparison.verdict == "same"


def test_timing_stops_at_the_most_pairs() -> None:
    comparison, _ = compared(noisy(4.0, seed=0), noisy(4.0, seed=1), budget=WHOLE)

    assert len(comparison.baseline.passes_ms) == WHOLE.max_rounds


def test_timing_stops_when_the_seconds_are_spent() -> None:
    budget = replace(WHOLE, seconds=0.160)  # 20 pairs of 4 + 4 ms

    comparison, _ = compared(repeat(4.0), noisy(4.0, seed=0, spread=1e-4), budget=budget)

    assert len(comparison.baseline.passes_ms) in (20, 21)


def test_seconds_yield_to_the_pairs_that_a_verdict_needs() -> None:
    comparison, _ = compared(repeat(4.0), repeat(3.0), budget=replace(BUDGET, seconds=0.001))

    assert len(comparison.baseline.passes_ms) == 12
    assert comparison.verdict == "faster"
    assert comparison.cautions == (Caution.FEW_PASSES,)


def test_too_few_pairs_prove_nothing() -> None:
    budget = replace(BUDGET, min_rounds=2, max_rounds=5)

    comparison, _ = compared(repeat(4.0), repeat(3.0), budget=budget)

    assert len(comparison.baseline.passes_ms) == 5
    assert comparison.verdict == "ambiguous"


def test_doubts_stand_in_the_comparison() -> None:
    first_slow = steady(change=lambda number: 3.0 if number == 0 else 1.0)
    warming = steady(change=lambda number: 1 + 0.002 * number)

    assert compared(first_slow, steady(), budget=WHOLE)[0].cautions == (Caution.SLOW_START,)
    assert compared(warming, steady(), budget=WHOLE)[0].cautions == (Caution.DRIFT,)


def test_the_same_seed_gives_the_same_comparison() -> None:
    once, again, other = (
        compared(noisy(4.0, seed=1), noisy(4.1, seed=2), seed=seed) for seed in (3, 3, 4)
    )

    assert once[0] == again[0]
    assert once[1].turns == again[1].turns
    assert once[1].turns != other[1].turns


@pytest.mark.parametrize("elapsed_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_time_is_refused(elapsed_ms: float) -> None:
    with pytest.raises(MeasurementError) as caught:
        compared(steady(), repeat(elapsed_ms))

    assert str(caught.value) == (
        f"a pass of the candidate took {elapsed_ms} ms by the clock; "
        "it must take a finite time above 0"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup": -1}, "warm-up must be 0 rounds or more, got -1"),
        (
            {"min_rounds": 41},
            "at least 1 round must be timed and the most must not be below the least, got 41 to 40",
        ),
        (
            {"min_rounds": 0},
            "at least 1 round must be timed and the most must not be below the least, got 0 to 40",
        ),
        ({"seconds": 0.0}, "seconds must be a number above 0, got 0.0"),
        ({"precision": -0.1}, "precision must be a number above 0, got -0.1"),
    ],
)
def test_an_impossible_budget_is_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(MeasurementError) as caught:
        replace(BUDGET, **change)

    assert str(caught.value) == message


def test_a_real_clock_gives_real_times() -> None:
    budget = TimingBudget(warmup=1, max_rounds=12, seconds=1, precision=0.5)

    comparison = compare(lambda: sum(range(99)), lambda: None, clock=WallClock(), budget=budget)

    assert all(pass_ms > 0 for pass_ms in comparison.baseline.passes_ms)
    assert comparison.low <= comparison.high
