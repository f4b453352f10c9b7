"""What a run knows of latencies where passes cannot be split."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.search.clockless import timing
from tests.search.tiny import Quiet, promised
from tokensearch.costs.forecast import LEAST_TIMED, Forecast
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.policy import Policy, Prune, mac_share
from tokensearch.records.run_folder import RunFolder
from tokensearch.search import load_space
from tokensearch.search.latency_model import draw_policies, make_forecast


def launch_bound(policy: Policy) -> float:
    """Work hardly counts, and every site adds launches."""
    return 0.8 + 0.2 * mac_share(policy) + 0.05 * len(policy.steps)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Policy]:
    """Policies in the order in which they are timed."""
    found: list[Policy] = []

    def time(_: PolicyTimer, policy: Policy, budget: object, **__: object) -> object:
        found.append(policy)
        return promised(launch_bound(policy))

    monkeypatch.setattr(PolicyTimer, "time", time)
    return found


def forecast(folder: Path, seconds: float) -> Forecast:
    eager = timing()
    compiled = replace(eager, cell=replace(eager.cell, backend="compile"))
    space = load_space("default").fitting(eager.spec, scored=True, prefix_read=True)
    first = draw_policies(space, eager.spec, 0)
    return make_forecast(compiled, RunFolder(folder), Quiet(), first, seconds=seconds)


def test_compiled_schedules_are_timed_before_anything_is_judged(
    tmp_path: Path, timed: list[Policy]
) -> None:
    found = forecast(tmp_path, seconds=60)

    deep = Policy(timing().spec, (Prune(0, 1),))
    assert mac_share(deep) < 0.3
    assert found.ratio(deep) == pytest.approx(launch_bound(deep), rel=0.1)
    assert len(timed) > LEAST_TIMED


def test_too_few_seconds_for_a_sweep_leave_multiply_accumulates(tmp_path: Path) -> None:
    clock, heard = timing(), Quiet()

    found = make_forecast(clock, RunFolder(tmp_path), heard, seconds=2.0, pass_s=1.0)

    pruned = Policy(clock.spec, (Prune(0, 4),))
    assert found.ratio(pruned) == pytest.approx(mac_share(pruned))
    assert found.error > 0.1
    assert heard.stages == []
    assert heard.notes[0].startswith("2 s are too few for a sweep")


def test_four_are_timed_however_short_the_time(tmp_path: Path, timed: list[Policy]) -> None:
    forecast(tmp_path, seconds=0)

    shares = [mac_share(policy) for policy in timed]
    assert len(timed) == LEAST_TIMED
    assert max(shares) - min(shares) > 0.4
