"""What differs between cells is said in words, and a baseline that moves is noticed."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tests.cells import GPU as MACHINE
from tests.cells import ON_GPU as CELL
from tokensearch.records.comparability import BaselineDrift, differences
from tokensearch.records.measurements import Cell, Latency, Machine

OTHERS: dict[str, Any] = {
    "device": "cpu",
    "dtype": "float32",
    "batch": 1,
    "resolution": 384,
    "backend": "compile",
    "threads": 8,
    "cache": "warm",
    "memory": "kept",
    "attention": "math",
    "matmul": "tf32",
    "kernels": "torch",
    "columns": 160,
    "processor": "Another CPU",
    "cores": 8,
    "accelerator": None,
    "system": "Linux aarch64",
    "versions": (("python", "3.12.0"), ("torch", "2.15.0")),
    "governor": "powersave",
    "driver": "580.2",
    "max_clock_mhz": 1200,
    "power_limit_w": 350.0,
}
CELL_FIELDS = [item.name for item in fields(Cell) if item.name != "machine"]
MACHINE_FIELDS = [item.name for item in fields(Machine)]


def changed(name: str) -> Cell:
    if name in CELL_FIELDS:
        return replace(CELL, **{name: OTHERS[name]})
    return replace(CELL, machine=replace(MACHINE, **{name: OTHERS[name]}))


def test_equal_cells_differ_in_nothing() -> None:
    assert differences(CELL, replace(CELL)) == ()


@pytest.mark.parametrize("name", [*CELL_FIELDS, *MACHINE_FIELDS])
def test_whatever_makes_two_cells_unequal_is_named(name: str) -> None:
    found = differences(CELL, changed(name))

    assert len(found) == 1
    assert found[0].startswith("torch " if name == "versions" else name.replace("_", " "))


def test_differences_are_said_in_words() -> None:
    other = replace(changed("versions"), batch=1, attention=None)

    assert differences(CELL, other) == (
        "batch 8 against 1",
        "attention flash against unknown",
        "torch 2.9.0 against 2.15.0",
    )


def test_a_version_that_only_one_has_is_named() -> None:
    other = replace(CELL, machine=replace(MACHINE, versions=MACHINE.versions[:1]))

    assert differences(CELL, other) == ("torch 2.9.0 against unknown",)


def test_versions_in_another_order_are_named_too() -> None:
    other = replace(CELL, machine=replace(MACHINE, versions=MACHINE.versions[::-1]))

    assert differences(CELL, other) == ("versions in another order",)


def baselines(*medians_ms: float, spread: float = 0.02, seed: int = 0) -> BaselineDrift:
    random = np.random.default_rng(seed)
    sentinel = BaselineDrift()
    for median_ms in medians_ms:
        passes = median_ms * np.exp(spread * random.standard_normal(40))
        sentinel.see(Latency(tuple(passes.tolist()), warmup=0))
    return sentinel


def test_a_baseline_that_keeps_its_speed_has_not_drifted() -> None:
    found = [baselines(*[4.0] * 12, seed=seed) for seed in range(100)]

    assert not any(sentinel.drifted for sentinel in found)


def test_wide_noise_is_no_drift() -> None:
    assert baselines(*[4.0] * 12, spread=0.1).moved > 0.02
    assert not baselines(*[4.0] * 12, spread=0.1).drifted


@pytest.mark.parametrize("at", range(5))
def test_a_baseline_that_was_slower_once_has_drifted_by_so_much(at: int) -> None:
    medians_ms = [4.0] * 5
    medians_ms[at] = 4.8

    sentinel = baselines(*medians_ms, spread=0.001)

    assert sentinel.drifted
    assert sentinel.moved == pytest.approx(0.2, abs=0.005)


def test_a_change_too_small_to_matter_is_no_drift() -> None:
    assert not baselines(4.0, 4.04, spread=0.0001).drifted


@pytest.mark.parametrize("medians_ms", [(), (4.0,)])
def test_fewer_than_two_comparisons_cannot_drift(medians_ms: tuple[float, ...]) -> None:
    assert baselines(*medians_ms).moved == 0
    assert not baselines(*medians_ms).drifted
