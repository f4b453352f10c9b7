import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.costs.machine import SPEC, SyntheticMachine, slope, table_of, unseen
from tokensearch.costs import CostTable, load_costs, save_costs
from tokensearch.errors import MeasurementError
from tokensearch.policy import Policy, Pool, Prune


@cache
def table() -> CostTable:
    return table_of(SyntheticMachine(slope, noise=0.03), seconds=20)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save_costs(table(), tmp_path / "costs.json")

    assert load_costs(tmp_path / "costs.json") == table()


def test_a_table_that_was_read_predicts_the_same(tmp_path: Path) -> None:
    save_costs(table(), tmp_path / "costs.json")

    read = load_costs(tmp_path / "costs.json")

    assert [read.predict(one) for one in unseen(5)] == [table().predict(one) for one in unseen(5)]


def test_the_un_reduced_model_has_the_ratio_1() -> None:
    assert table().ratio(Policy(SPEC)) == 1.0


def test_no_schedule_is_predicted_to_take_less_than_nothing() -> None:
    poor = replace(table(), calibration=replace(table().calibration, fixed_ms=-1e6))

    assert poor.predict(Policy(SPEC, (Prune(0, 1),))) == 0.01 * table().baseline_ms


def test_blocks_are_all_of_a_pass_but_its_ends() -> None:
    policy = Policy(SPEC, (Prune(1, 30), Pool(3, 20)))

    blocks = table().blocks(policy)

    ends = table().predict(policy) - sum(block.ms for block in blocks)
    assert 25 < ends < 40  # stem, head and gaps were planted as 31
    assert [block.reducing_ms > 0 for block in blocks] == [False, True, False, True, False, False]


def test_a_step_costs_more_than_it_saves_where_nearly_all_tokens_stay() -> None:
    assert (
        table().ratio(Policy(SPEC, (Pool(4, 47),)))
        > 1
        > table().ratio(Policy(SPEC, (Pool(0, 24),)))
    )


def test_a_policy_for_another_geometry_is_refused() -> None:
    other = replace(SPEC, patch_tokens=64)

    with pytest.raises(MeasurementError) as raised:
        table().predict(Policy(other))

    assert str(raised.value) == (
        "the costs are those of toy (6 blocks, 48 + 1 tokens, width 8); the policy is for "
        "toy (6 blocks, 64 + 1 tokens, width 8)"
    )


def test_an_operator_that_was_not_measured_is_refused_by_name() -> None:
    with pytest.raises(MeasurementError, match="needs 'pool agglomerative', which the sweep has"):
        table().predict(Policy(SPEC, (Pool(1, 20, "agglomerative"),)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "tokensearch.policy"}, "format is 'tokensearch.policy', version 1"),
        ({"version": 2}, "format is 'tokensearch.costs', version 2"),
        ({"curves": None}, "curves is None; it must be a list"),
        ({"model": {"name": "toy"}}, "model.blocks is missing"),
    ],
)
def test_a_file_that_is_no_cost_table_is_refused_and_named(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "costs.json"
    save_costs(table(), path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(MeasurementError, match=sentence) as raised:
        load_costs(path)

    assert str(raised.value).endswith(f" (in {path})")


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_a_file_that_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text)

    with pytest.raises(MeasurementError, match="the file"):
        load_costs(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="the file cannot be read: No such file"):
        load_costs(tmp_path / "costs.json")


def test_reading_and_predicting_load_no_torch() -> None:
    code = "import sys, tokensearch.costs; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
