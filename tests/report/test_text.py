import pytest

from tokensearch.report import text
from tokensearch.stats.interval import Interval


@pytest.mark.parametrize(
    ("value_ms", "written"),
    [
        (4.0, "4.00 ms"),
        (40.04, "40.0 ms"),
        (399.6, "400 ms"),
        (0.812, "812 us"),
        (0.00512, "5.12 us"),
        (0.9994, "999 us"),
        (0.9996, "1.00 ms"),
        (9.996, "10.0 ms"),
        (999.6, "1.00 s"),
        (61_500.0, "61.5 s"),
    ],
)
def test_a_latency_has_three_digits_and_the_unit_that_suits_it(
    value_ms: float, written: str
) -> None:
    assert text.ms(value_ms) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Interval(0.48, 0.47, 0.49), "0.48x [0.47, 0.49]"),
        (Interval(0.4812, 0.4790, 0.4832), "0.481x [0.479, 0.483]"),
        (Interval(1.0, 0.9, 1.1), "1.00x [0.90, 1.10]"),
    ],
)
def test_a_ratio_has_as_many_digits_as_its_interval_bears(value: Interval, written: str) -> None:
    assert text.ratio_interval(value) == written


def test_a_share_has_its_interval_in_percent() -> None:
    assert text.percent_interval(Interval(0.973, 0.965, 0.98)) == "97.3 % [96.5, 98.0]"


def test_nothing_is_ever_minus_zero() -> None:
    barely = Interval(-0.0001, -0.0001, -0.0001)

    assert text.percent(-0.0001) == "0.0 %"
    assert text.points_interval(barely) == "0.0 points [0.0, 0.0]"
    assert text.signed_points_interval(barely) == "+0.0 points [+0.0, +0.0]"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_a_duration_never_shows_sixty_of_anything(seconds: float, written: str) -> None:
    assert text.duration(seconds) == written


def test_a_strip_has_one_bar_per_block_and_shows_the_smallest_remainder() -> None:
    assert text.strip([196, 147, 98, 49, 1, 0], full=196) == "█▆▄▂▁·"


@pytest.mark.parametrize(
    ("number", "thing", "written"),
    [(0, "image", "0 images"), (1, "image", "1 image"), (2, "pass", "2 passes"), (9, "", "9")],
)
def test_things_are_counted_in_words(number: int, thing: str, written: str) -> None:
    assert text.count(number, thing) == written


def test_throughput_comes_from_batch_and_median() -> None:
    assert (text.rate(64, 5.0), text.rate(1, 40.0)) == ("12,800 images/s", "25.0 images/s")


def test_tiny_p_values_are_not_written_out() -> None:
    assert (text.probability(0.0004), text.probability(1.0)) == ("p < 0.001", "p = 1.000")
