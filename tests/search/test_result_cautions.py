"""What makes the timings of a run doubtful is said with its result."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.search import tiny
from tokensearch.evaluation import latency as timing
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import Flushed, MachineMonitor, TimingBudget, describe_cell
from tokensearch.policy import Policy, Prune
from tokensearch.records.measurements import Caution, Comparison, Latency
from tokensearch.records.run_result import BaselineMoved, RunResult
from tokensearch.runtime import describe
from tokensearch.search.finalists import finish as outcome

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

BUDGET = TimingBudget(warmup=0, max_rounds=12, seconds=1)


def at_speed(found: Comparison, baseline_ms: float) -> Comparison:
    """The same comparison on a machine of another speed."""
    share = baseline_ms / found.baseline.median_ms
    sides = {
        name: Latency(tuple(share * one for one in latency.passes_ms), warmup=1)
        for name, latency in (("baseline", found.baseline), ("candidate", found.candidate))
    }
    return replace(found, **sides)


def result_of_a_run(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    slower: float,
    target: str = "1000s",
    trials: int = 4,
) -> RunResult:
    """A run whose every comparison finds the machine slower than the one before."""
    times: list[Comparison] = []

    def timed(one: PolicyEvaluator, policy: Policy, budget: TimingBudget) -> Comparison:
        baseline_ms = 10.0 * (1 + slower * len(times))
        times.append(at_speed(tiny.by_macs(one, policy, budget), baseline_ms))
        return times[-1]

    monkeypatch.setattr(PolicyEvaluator, "time", timed)
    monkeypatch.setattr(outcome, "_profile", lambda *_: None)  # takes seconds, changes nothing
    document = tiny.session(folder, trials=trials, target=target).run()
    return document.finished


def test_a_run_whose_baseline_changed_between_finalists_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of_a_run(tmp_path / "run", monkeypatch, slower=0.05)

    assert Caution.MOVED_BASELINE.value in result.cautions
    assert result.baseline_moved.search > 0.05
    assert result.baseline_moved.finalists > 0.03


def test_a_run_whose_baseline_kept_its_speed_has_no_such_caution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of_a_run(tmp_path / "run", monkeypatch, slower=0.0)

    assert Caution.MOVED_BASELINE.value not in result.cautions
    assert result.baseline_moved == BaselineMoved(search=0.0, finalists=0.0)


def test_a_baseline_that_changed_beside_a_control_alone_does_not_stand_over_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = at_speed(tiny.promised(0.5), 13.0)
    monkeypatch.setattr(tiny.Unclocked, "time_model", lambda *_: slow)

    result = result_of_a_run(tmp_path / "run", monkeypatch, slower=0.0, target="0.9x")

    assert [rival.kind for rival in result.alternatives] == ["resolution"]
    assert Caution.MOVED_BASELINE.value not in result.cautions
    assert result.baseline_moved == BaselineMoved(search=0.0, finalists=pytest.approx(0.3))


def test_a_search_without_time_for_a_proposal_of_its_own_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of_a_run(tmp_path / "run", monkeypatch, slower=0.0, trials=1)

    said = "the search had time for presets and controls alone (1) and proposed nothing: "
    assert [one for one in result.cautions if one.startswith(said)]


def timed(policy: Policy, monkeypatch: pytest.MonkeyPatch, **cell: Any) -> tuple[Any, Any]:
    """What becomes of a comparison that finds the candidate slower, and how it was asked for."""
    asked: dict[str, Any] = {}

    def compare(*runs: object, **options: Any) -> Comparison:
        asked.update(options)
        passes = Latency((4.0,) * 30, warmup=1)
        return Comparison(passes, passes, 1.1, 1.05, 1.15, 0.95, "slower")

    monkeypatch.setattr(timing, "compare", compare)
    where = describe_cell(torch.device("cpu"), torch.float32, 2, 32, **cell)
    one = PolicyEvaluator(tiny.model(), tiny.splits(), where, seed=0)
    return one.time(policy, BUDGET), asked


def test_an_unreduced_model_that_differs_from_itself_is_doubted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = describe(tiny.model())

    unreduced, _ = timed(Policy(spec), monkeypatch)
    reduced, _ = timed(Policy(spec, (Prune(1, 8),)), monkeypatch)

    assert unreduced.cautions == (Caution.UNLIKE_ITSELF,)
    assert reduced.cautions == ()


def test_timings_are_watched_and_flush_the_caches_where_the_cell_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tokensearch.measure.clock.cache_bytes", lambda device: 4096)

    _, asked = timed(Policy(describe(tiny.model())), monkeypatch, cache="flushed")

    assert isinstance(asked["watch"], MachineMonitor)
    assert isinstance(asked["clock"], Flushed)
