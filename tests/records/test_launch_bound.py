import pytest

from tokensearch.records.launch_bound import LaunchCost, State, launch_state


@pytest.mark.parametrize(
    ("host_ms", "state"), [(4.9, "bound"), (4.5, "bound"), (4.4, "busy"), (0.1, "busy")]
)
def test_a_pass_that_its_host_takes_nearly_as_long_to_launch_is_launch_bound(
    host_ms: float, state: State
) -> None:
    assert launch_state(pass_ms=5.0, host_ms=host_ms) == state


@pytest.mark.parametrize(
    ("busy_ms", "state"), [(2.4, "bound"), (2.5, "gaps"), (3.9, "gaps"), (4.0, "busy")]
)
def test_a_pass_in_which_the_gpu_works_less_than_half_is_launch_bound(
    busy_ms: float, state: State
) -> None:
    assert launch_state(pass_ms=5.0, busy_ms=busy_ms) == state


def test_a_host_that_is_slow_is_so_however_long_kernels_overlap() -> None:
    assert launch_state(pass_ms=5.0, busy_ms=3.0, host_ms=4.9) == "bound"
    assert launch_state(pass_ms=5.0, busy_ms=3.0, host_ms=2.0) == "gaps"


def test_without_a_measurement_nothing_is_said() -> None:
    assert launch_state(pass_ms=5.0) is None


def test_the_sentence_has_both_figures_and_the_way_out() -> None:
    assert LaunchCost(4.9, 5.0).sentence == (
        "launch-bound: the host takes 4.9 ms to launch a pass of 5 ms, so fewer tokens cannot make "
        "it faster; try --backend cudagraph, or a larger batch"
    )
