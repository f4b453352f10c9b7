"""Cells come back from files as they were written; percentiles need passes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.cells import GPU, ON_GPU
from tokensearch.errors import MeasurementError
from tokensearch.records.measurements import (
    Cell,
    Latency,
    Machine,
    from_json,
    to_json,
)


def through_a_file(record: Cell | Machine) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(to_json(record)))
    return written


def test_a_machine_comes_back_from_its_file() -> None:
    assert from_json(Machine, through_a_file(GPU)) == GPU


def test_a_cell_comes_back_from_its_file() -> None:
    assert from_json(Cell, through_a_file(ON_GPU)) == ON_GPU


@pytest.mark.parametrize(("name", "value"), [("matmul", "tf32"), ("kernels", "triton")])
def test_an_older_cell_does_not_say_how_products_and_operators_were_computed(
    name: str, value: str
) -> None:
    written = through_a_file(replace(ON_GPU, **{name: value}))  # type: ignore[arg-type]
    assert getattr(from_json(Cell, written), name) == value
    del written[name]

    assert getattr(from_json(Cell, written), name) is None


def test_a_cell_that_lacks_something_is_not_filled_up() -> None:
    written = through_a_file(ON_GPU)
    del written["cache"]

    with pytest.raises(KeyError, match="cache"):
        from_json(Cell, written)


@pytest.mark.parametrize(("percent", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662)])
def test_a_percentile_is_quoted_of_enough_passes_only(percent: float, needed: int) -> None:
    passes = tuple(float(number) for number in range(needed, 0, -1))

    assert Latency(passes[1:], warmup=0).percentile_ms(percent) is None
    found = Latency(passes, warmup=0).percentile_ms(percent)
    assert found is not None
    assert sum(one <= found for one in passes) / needed >= percent / 100
    assert sum(one < found for one in passes) / needed < percent / 100


@pytest.mark.parametrize("percent", [0, 49.9, 100, 101])
def test_a_percentile_that_no_passes_could_carry_is_refused(percent: float) -> None:
    with pytest.raises(MeasurementError) as caught:
        Latency((4.0,), warmup=0).percentile_ms(percent)

    assert str(caught.value) == f"a percentile must be at least 50 and below 100, got {percent}"
