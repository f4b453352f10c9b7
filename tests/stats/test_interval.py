import pytest

from tokensearch.stats.interval import Interval


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(4.0, 4.4, True), (4.1, 4.4, True), (4.2, 4.4, False), (3.0, 3.8, False)],
)
def test_intervals_overlap_when_they_share_a_value(
    low: float, high: float, *, expected: bool
) -> None:
    clock, profiler = Interval(4.0, 3.9, 4.1), Interval((low + high) / 2, low, high)

    assert clock.overlaps(profiler) == profiler.overlaps(clock) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.3, True), (-0.3, -0.1, True), (0.0, 0.2, False)]
)
def test_a_difference_is_significant_when_its_interval_leaves_out_0(
    low: float, high: float, *, expected: bool
) -> None:
    change = Interval((low + high) / 2, low, high)

    assert change.significant == (-change).significant == expected
