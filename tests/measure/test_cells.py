"""Cells come back from files as they were written."""

import json
from typing import Any

import pytest

from tokensearch.records import (
    Cell,
    Machine,
    cell_from_json,
    machine_from_json,
    to_json,
)

MACHINE = Machine(
    processor="Example CPU 3000",
    cores=4,
    accelerator="Example GPU",
    system="Linux x86_64",
    versions=(("python", "3.12.0"), ("torch", "2.9.0")),
    governor="performance",
    driver="570.1",
    max_clock_mhz=1980,
    power_limit_w=700.0,
)
CELL = Cell(
    device="cuda",
    dtype="float16",
    batch=8,
    resolution=224,
    backend="eager",
    threads=4,
    machine=MACHINE,
    cache="flushed",
    attention="flash",
)


def through_a_file(record: Cell | Machine) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(json.dumps(to_json(record)))
    return written


def test_a_machine_comes_back_from_its_file() -> None:
    assert machine_from_json(through_a_file(MACHINE)) == MACHINE


def test_a_cell_comes_back_from_its_file() -> None:
    assert cell_from_json(through_a_file(CELL)) == CELL


def test_a_cell_that_lacks_something_is_not_filled_up() -> None:
    written = through_a_file(CELL)
    del written["cache"]

    with pytest.raises(KeyError, match="cache"):
        cell_from_json(written)
