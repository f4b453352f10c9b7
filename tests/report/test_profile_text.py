from tests.report.ledgers import baseline
from tokensearch.report.profile_text import facts


def test_a_pass_is_a_median_and_says_so_and_phases_are_means_of_the_middle_half() -> None:
    first = next(facts(baseline()))

    assert first == (
        "A pass takes 26.0 ms, 308 images/s, by the median of 16. Times of phases are means of the "
        "middle half of passes that are split, 1.00x as long as others; 0.0 % belong to no phase."
    )


def test_a_price_of_tracing_is_named_only_where_there_is_one() -> None:
    dear, free = (list(facts(baseline(traced_ms=(ms,)))) for ms in (39.0, 19.5))

    assert "Under the PyTorch profiler it takes 1.50x as long" in dear[1]
    assert len(free) == 1
