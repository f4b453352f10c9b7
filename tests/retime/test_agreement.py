"""`run`, `retarget` and `PolicySet.best` answer any target alike, from one front."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.search.clockless import no_clock, timing
from tests.search.tiny import Quiet, session
from tokensearch.errors import NoPolicyError, TokensearchWarning
from tokensearch.policy import Goal, PolicySet, load_set, parse_target
from tokensearch.records.run_folder import RunFolder
from tokensearch.retime.retarget import FinishedRun, Retarget, confirm_known, read_finished
from tokensearch.search.finalists.finalist import select_answer

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

TARGETS = [*(f"{0.03 * n:.2f}x" for n in range(1, 35)), *(f"{n}ms" for n in range(2, 10))]
BOUNDS = [Goal(max_divergence=10.0**-n) for n in range(3, 8)] + [
    Goal(max_drop=drop) for drop in (0.0, 0.1, 0.3)
]
GOALS = [*(Goal(parse_target(text)) for text in TARGETS), *BOUNDS]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FinishedRun]:
    folder = tmp_path_factory.mktemp("runs") / "source"
    run = session(folder, trials=16, target="0.6x")
    select = replace(run.splits.select, groups=tuple(i // 2 for i in range(len(run.splits.select))))
    with no_clock():
        replace(run, splits=replace(run.splits, select=select)).run()
        yield read_finished(RunFolder(folder))


def of_run(source: FinishedRun, goal: Goal) -> str | None:
    """What a run with these finalists would have answered."""
    confirmed = confirm_known(source.known, timing(), "kl", Quiet())
    answer = select_answer(confirmed, goal, batch=4)
    firm = answer.policy is not None and answer.outcome != "ambiguous"
    return answer.policy.schedule_hash if firm and answer.policy else None


def of_retarget(source: FinishedRun, goal: Goal, path: Path) -> str | None:
    folder = RunFolder(path)
    result = Retarget(source, folder, timing(), goal, Quiet(), "again").run().finished
    return None if result.outcome == "ambiguous" else result.answer_hash


def of_front(front: PolicySet, goal: Goal) -> str | None:
    drop = None if goal.max_drop is None else 100 * goal.max_drop
    with warnings.catch_warnings():
        warnings.simplefilter("error", TokensearchWarning)  # only the baseline would do for certain
        try:
            best = front.best(goal.target, max_drop=drop, max_divergence=goal.max_divergence)
        except (NoPolicyError, TokensearchWarning):
            return None
    return best.schedule_hash


@pytest.mark.long
def test_run_retarget_and_policy_set_agree_on_every_target(
    source: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Schedules of the tiny model diverge by less than what counts as a difference.
    monkeypatch.setattr("tokensearch.policy.answer.TOLERANCE_NATS", 1e-6)
    front = load_set(source.folder.front)

    answers = {
        str(goal): (
            of_run(source, goal),
            of_front(front, goal),
            of_retarget(source, goal, tmp_path / f"{number}"),
        )
        for number, goal in enumerate(GOALS)
    }

    assert {goal: said for goal, said in answers.items() if len(set(said)) > 1} == {}
    assert len(answers) == 50
    assert len(set(answers.values())) > 5  # targets that tell policies apart
