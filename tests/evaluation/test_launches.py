"""That a search is launch-bound is said before it begins, and kept in its run.json."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.search.clockless import no_clock, timing
from tests.search.tiny import Quiet, model, session
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import Goal, parse_target
from tokensearch.records.launch_bound import LaunchCost
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.run.result import run_cautions
from tokensearch.retime.retarget import Retarget, read_finished
from tokensearch.search.warm_start import launch_floor_hint

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

BOUND, FREE = LaunchCost(4.9, 5.0), LaunchCost(2.0, 5.0)


@pytest.fixture(autouse=True)
def _no_clock() -> Iterator[None]:
    with no_clock():
        yield


def test_a_launch_bound_search_says_so_first_and_writes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyTimer, "launching", BOUND)
    one = session(tmp_path, trials=2)

    document = one.run()

    assert document.launching == BOUND
    assert one.listener.cautions[0] == BOUND.sentence
    assert run_cautions(document)[0] == BOUND.sentence


def test_a_search_that_is_not_launch_bound_keeps_what_was_measured_and_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyTimer, "launching", FREE)
    one = session(tmp_path, trials=2)

    document = one.run()

    assert document.launching == FREE
    assert not any("launch" in said for said in one.listener.cautions)
    assert not any("launch" in said for said in run_cautions(document))


def test_on_a_cpu_nothing_is_launched_and_a_file_of_before_says_nothing_of_it(
    tmp_path: Path,
) -> None:
    document = session(tmp_path, trials=2).run()

    assert document.launching is None
    assert not any("launch" in said for said in run_cautions(document))


def test_a_retargeted_run_has_the_launches_of_its_own_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyTimer, "launching", FREE)
    session(tmp_path / "source", trials=2).run()
    monkeypatch.setattr(PolicyTimer, "launching", BOUND)
    heard = Quiet()

    document = Retarget(
        read_finished(RunFolder(tmp_path / "source")),
        RunFolder(tmp_path / "other"),
        timing(),
        Goal(parse_target("1000s")),
        heard,
        "tokensearch retarget",
    ).run()

    assert document.launching == BOUND
    assert heard.cautions[0] == BOUND.sentence


def test_a_target_out_of_reach_names_the_way_out_where_launches_stand_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyTimer, "launching", FREE)
    one = session(tmp_path, trials=2, target="0.05x")

    one.run()

    (said,) = [line for line in one.listener.cautions if "0.05x is out of reach" in line]
    assert said.endswith(
        "; launching the baseline's pass alone takes 0.40x: try --backend cudagraph, or a "
        "larger batch"
    )


def test_a_way_out_is_named_only_where_launches_take_more_than_the_target() -> None:
    assert launch_floor_hint(FREE, 0.41) == ""
    assert launch_floor_hint(None, 0.1) == ""
    assert launch_floor_hint(FREE, 0.39).startswith("; launching")


@pytest.mark.gpu
def test_a_small_model_is_launch_bound_in_eager_mode() -> None:
    cell = replace(timing().cell, device="cuda")
    images = torch.zeros(4, 3, 32, 32, device="cuda")
    eager, replayed = (
        PolicyTimer(model().cuda(), images, replace(cell, backend=backend), 0).launching
        for backend in ("eager", "cudagraph")
    )

    assert eager is not None
    assert eager.bound
    assert replayed is None
