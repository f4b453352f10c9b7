from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.isotonic import isotonic_regression

from tests.costs.machine import SyntheticMachine, slope, table_of, treads
from tokensearch.costs import fit_staircase
from tokensearch.costs.curves import Curve
from tokensearch.costs.staircase import block_costs
from tokensearch.report.costs import draw_staircase, sparkline, staircase_text


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_counts_worth_stopping_at_are_the_ends_of_the_planted_treads(noise: float) -> None:
    stairs = fit_staircase(
        table_of(SyntheticMachine(treads, noise=noise), seconds=600 if noise else 150)
    )

    assert stairs.good_counts == (8, 16, 24, 32, 40, 48)
    assert stairs.sentences[0] == "1 patch token costs as much as 8 here"


def test_levels_are_the_isotonic_fit_of_scikit_learn() -> None:
    stairs = fit_staircase(table_of(SyntheticMachine(slope, noise=0.2), seconds=20))

    weights = 1 / np.square(stairs.error_ms)
    assert stairs.ms == pytest.approx(
        isotonic_regression(stairs.measured_ms, sample_weight=weights), abs=1e-9
    )
    assert stairs.ms != pytest.approx(stairs.measured_ms)


@pytest.mark.parametrize("seed", range(3))
def test_on_a_slope_no_count_is_better_than_another(seed: int) -> None:
    stairs = fit_staircase(table_of(SyntheticMachine(slope, noise=0.03, seed=seed)))

    assert stairs.good_counts == (48,)
    assert stairs.sentences == ()


@pytest.mark.parametrize("seed", range(5))
def test_on_a_slope_of_many_counts_none_is_better_either(seed: int) -> None:
    random = np.random.default_rng(seed)
    counts = np.arange(1, 49)
    errors = 0.01 * counts
    curves = [
        Curve(
            name,
            tuple(counts),
            tuple(counts + errors * random.normal(size=48)),
            tuple(errors),
            (1.0,),
        )
        for name in ("attention", "mlp")
    ]

    stairs = fit_staircase(replace(table_of(SyntheticMachine(slope), 10), curves=tuple(curves)))

    assert stairs.good_counts == (48,)


def test_a_block_costs_what_its_halves_cost() -> None:
    table = table_of(SyntheticMachine(treads), seconds=300)

    costs = block_costs(table)

    assert list(costs) == list(range(1, 49))
    assert costs[17] == pytest.approx(2 + 1.5 + 2.2 * treads(17))


def test_the_console_names_the_treads_and_the_prices() -> None:
    console = Console(width=100, record=True)

    console.print(staircase_text(table_of(SyntheticMachine(treads))))

    shown = console.export_text()
    assert "41 patch tokens cost as much as 48 here" in shown
    assert "pool bipartite" in shown
    assert "baseline" in shown


def test_a_slope_is_said_to_have_no_steps() -> None:
    console = Console(width=100, record=True)

    console.print(staircase_text(table_of(SyntheticMachine(slope))))

    assert "no step beyond the noise" in console.export_text()


def test_the_sparkline_rises() -> None:
    bars = sparkline(fit_staircase(table_of(SyntheticMachine(treads))))

    assert list(bars) == sorted(bars)
    assert bars[0] < bars[-1]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_is_the_same_for_the_same_costs(tmp_path: Path, suffix: str) -> None:
    table = table_of(SyntheticMachine(treads, noise=0.02), seconds=15)
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "other")]

    for path in paths:
        draw_staircase(table, path)

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 1000
