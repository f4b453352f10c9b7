from dataclasses import replace

import pytest

from tests.report.ledgers import baseline, operator
from tokensearch.records.measurements import Backend
from tokensearch.report.profile import facts


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


@pytest.mark.parametrize(
    ("backend", "kernels_ms", "times"),
    [("eager", 12.0, 1), ("eager", 14.0, 0), ("cudagraph", 12.0, 0)],
)
def test_a_pass_in_which_the_gpu_mostly_waits_is_launch_bound_unless_it_is_replayed(
    backend: Backend, kernels_ms: float, times: int
) -> None:
    cell = replace(baseline().cell, backend=backend)
    kernels = (operator((0, "mlp"), "gemm", kernels_ms, kernel=True),)
    line = (
        "Launch-bound: fewer tokens cannot make it faster; try --backend cudagraph, or a larger "
        "batch."
    )

    assert list(facts(baseline(cell=cell, operators=kernels))).count(line) == times
