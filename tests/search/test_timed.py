"""Which trials are timed, and what becomes of predictions that were wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.search.tiny import promised, session
from tokensearch.costs.forecast import ENOUGH, NEARBY
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy, Pool, mac_share
from tokensearch.policy.file import policy_from_json
from tokensearch.records.measurements import Comparison, Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunResult

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


Run = tuple[tuple[Trial, ...], RunResult]


def searched(folder: Path, clock: Callable[[Policy], float]) -> Run:
    """A search that predicts multiply-accumulates, where a clock says something else."""

    def time(_: Any, policy: Policy, budget: TimingBudget, **__: object) -> Comparison:
        return promised(clock(policy) if policy.reduces else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyTimer, "time", time)
        patch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
        document = session(folder, trials=28, target="0.6x").run()
    return RunFolder(folder).read_trials(), document.finished


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Where the clock says what was predicted."""
    return searched(tmp_path_factory.mktemp("good"), mac_share)


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return searched(tmp_path_factory.mktemp("poor"), slow_pools)


def slow_pools(policy: Policy) -> float:
    """Pooling costs a fifth more than its multiply-accumulates."""
    return mac_share(policy) * (1.2 if any(isinstance(s, Pool) for s in policy.steps) else 1.0)


def kinds(trial: Trial) -> set[type]:
    return {type(step) for step in policy_from_json(trial.policy).steps}


@pytest.mark.long
def test_a_leading_trial_is_not_timed_after_two_alike(good: Run) -> None:
    trials, _ = good

    timed = [trial for trial in trials[1:] if trial.comparison is not None]
    for trial in timed:
        before = [
            one
            for one in timed
            if one.number < trial.number
            and kinds(one) == kinds(trial)
            and abs(one.ratio / trial.ratio - 1) < NEARBY / 2
        ]
        assert len(before) < ENOUGH
    assert len(timed) < sum(trial.state == "complete" for trial in trials)


def test_finalists_teach_the_forecast_too(poor: Run) -> None:
    trials, result = poor

    timed = sum(trial.comparison is not None for trial in trials[1:])
    assert result.forecast.timed > timed


@pytest.mark.long
def test_where_predictions_are_poor_what_leads_is_timed(good: Run, poor: Run) -> None:
    share = [
        sum(trial.comparison is not None for trial in trials)
        / sum(trial.state == "complete" for trial in trials)
        for trials, _ in (good, poor)
    ]
    assert share[1] > share[0]


def test_the_answer_meets_the_target_by_the_clock_where_predictions_err(poor: Run) -> None:
    trials, result = poor

    assert result.outcome == "met"
    names = {trial.schedule_hash: policy_from_json(trial.policy) for trial in trials}
    assert slow_pools(names[result.answer_hash]) <= 0.6
    raced = {trial.schedule_hash for trial in trials if trial.state == "raced"}
    assert not raced & {one.schedule_hash for one in result.finalists}
