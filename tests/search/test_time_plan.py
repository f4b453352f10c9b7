"""Time is what was asked: what a run measures is cut to its seconds before anything is searched."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
import torch

from tests.search import tiny
from tests.search.tiny import Quiet, by_macs, session
from tokensearch.data.splits import PURPOSES, Purpose
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import CHUNK
from tokensearch.measure import describe_cell
from tokensearch.measure.cautions import ENOUGH_PASSES
from tokensearch.policy import Goal, Policy, Prune, parse_target
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SearchBudget
from tokensearch.runtime import describe
from tokensearch.search.finalists.finish import FinalScorer
from tokensearch.search.time_plan import (
    LEAST_FINALISTS,
    MOST_FINALISTS,
    REDUCED,
    SCORING,
    SHARES,
    Pace,
    TimePlan,
    count_images,
    fit_plan,
    take_first,
    warn_few_images,
)
from tokensearch.stats.bootstrap import VERDICT_PAIRS

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

CPU = Pace(read_s=0.006, predict_s=0.013, pass_s=0.105)
GPU = Pace(read_s=0.006, predict_s=0.0003, pass_s=0.02)


class Long:
    """As many images as are asked for, none of which is read."""

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        raise AssertionError("read")


WHOLE = tiny.splits()
ASKED = replace(
    WHOLE,
    search=replace(WHOLE.search, dataset=Long()),
    select=replace(WHOLE.select, dataset=Long()),
    report=replace(WHOLE.report, dataset=Long()),
)


def seconds_of(plan: TimePlan, pace: Pace, counts: dict[Purpose, int]) -> float:
    """What a run takes but for searching: reading twice, predicting, timing once."""
    policies = 1 + plan.finalists * REDUCED
    reading = 2 * sum(counts.values()) * pace.read_s
    images = counts["search"] + policies * (counts["select"] + counts["report"])
    return reading + images * pace.predict_s + plan.finalists * plan.confirm_seconds


def test_a_bound_that_so_few_images_cannot_tell_is_said_before_the_search() -> None:
    listener, select = Quiet(), replace(WHOLE.select, dataset=[(torch.zeros(1), 0)] * 32)
    alike = replace(select, groups=tuple(range(16)) * 2)  # which show the same, two by two

    for goal in (Goal(max_drop=0.1), Goal(parse_target("0.5x")), Goal(max_drop=0.05)):
        warn_few_images(goal, select, listener)
    warn_few_images(Goal(max_drop=0.1), alike, listener)

    assert ["under 8.2 points" in said for said in listener.cautions] == [True, False]
    assert all("32 images to select on" in said for said in listener.cautions)


def test_the_shares_are_all_of_the_time_and_the_sweep_is_a_fifth_at_most() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert SHARES["sweep"] <= 0.2
    assert TimePlan(60.0).end_of("profiling") == pytest.approx(60.0)


@pytest.mark.parametrize("pace", [CPU, GPU])
@pytest.mark.parametrize("seconds", [36.0, 60.0, 270.0, 3600.0])
def test_what_is_planned_fits_in_what_was_asked(pace: Pace, seconds: float) -> None:
    plan = fit_plan(TimePlan(seconds), pace)

    counts = count_images(plan, pace, ASKED)

    assert seconds_of(plan, pace, counts) <= (1 - SHARES["sweep"] - SHARES["search"]) * seconds
    assert all(count % CHUNK == 0 for count in counts.values())


def test_more_time_is_more_images_and_finalists() -> None:
    plans = [fit_plan(TimePlan(seconds), CPU) for seconds in (24.0, 60.0, 600.0)]

    counts = [count_images(plan, CPU, ASKED)["search"] for plan in plans]

    assert counts == sorted(set(counts))
    assert plans[0].finalists == LEAST_FINALISTS
    assert plans[-1].finalists == MOST_FINALISTS


def test_sessions_leave_no_doubt_where_there_is_time_for_as_many_rounds() -> None:
    plan = fit_plan(TimePlan(270.0), CPU)

    assert plan.count_rounds(plan.finalists) == plan.count_rounds(1) == ENOUGH_PASSES
    short = fit_plan(TimePlan(24.0, began=monotonic() - 18), CPU)
    assert short.count_rounds(LEAST_FINALISTS) == VERDICT_PAIRS
    assert VERDICT_PAIRS < short.count_rounds(1, until="quoting") < ENOUGH_PASSES
    assert TimePlan(None).count_rounds(MOST_FINALISTS) == ENOUGH_PASSES


def test_a_resumed_run_goes_on_with_the_time_that_was_left() -> None:
    plan = TimePlan(60.0, earlier=45.0)

    assert 45.0 <= plan.elapsed < 60.0
    assert plan.is_over("search")
    assert not plan.is_over("profiling")
    assert replace(plan, earlier=60.0).is_over("profiling")


def test_finalists_are_as_many_as_enough_rounds_of_all_of_them_fit() -> None:
    plan = fit_plan(TimePlan(270.0), CPU)
    scored = replace(
        plan, began=plan.began - plan.end_of("search") - SCORING * plan.share("confirming")
    )

    assert LEAST_FINALISTS < plan.finalists < MOST_FINALISTS
    assert scored.count_rounds(plan.finalists) == ENOUGH_PASSES
    assert scored.count_rounds(plan.finalists + 2) < ENOUGH_PASSES


def test_fewer_rounds_are_asked_for_once_time_is_short() -> None:
    plan = fit_plan(TimePlan(270.0), CPU)
    late = replace(plan, began=plan.began - plan.end_of("confirming"))

    assert plan.count_rounds(plan.finalists) == ENOUGH_PASSES
    assert late.count_rounds(1) == VERDICT_PAIRS


def test_what_a_run_does_at_least_is_said_where_it_takes_longer_than_asked() -> None:
    slow = replace(CPU, pass_s=6.6, predict_s=0.44)  # a busy machine
    short, long = (fit_plan(TimePlan(seconds), slow) for seconds in (90.0, 3600.0))

    assert short.least_s == long.least_s > 90.0
    assert f"is estimated at {short.least_s:.0f} s by the first" in short.describe(WHOLE, WHOLE)
    assert "at least" not in long.describe(WHOLE, WHOLE)
    assert "(what a stage leaves goes to those after it)" in long.describe(WHOLE, WHOLE)


def test_without_a_bound_on_time_everything_is_measured() -> None:
    plan = fit_plan(TimePlan(None), CPU)

    assert set(count_images(plan, CPU, ASKED).values()) == {10**6}
    assert plan.finalists == MOST_FINALISTS
    assert not plan.is_over("profiling")


def test_profiles_are_left_out_where_their_passes_do_not_fit() -> None:
    plan = TimePlan(60.0, began=monotonic() - 55)

    assert replace(plan, pass_s=0.01).allows_profiles
    assert not replace(plan, pass_s=0.2).allows_profiles
    assert TimePlan(None).allows_profiles


def test_the_first_images_of_a_split_are_another_split() -> None:
    fewer = take_first(WHOLE, {"search": 32, "select": 100, "report": 10})

    assert [len(fewer.of(name)) for name in PURPOSES] == [32, 30, 10]
    assert torch.equal(fewer.report.part(0, 10)[0], WHOLE.report.part(0, 10)[0])
    assert fewer.select == WHOLE.select
    assert fewer.report.digest != WHOLE.report.digest


def test_what_there_is_time_for_is_said() -> None:
    fewer = take_first(WHOLE, {"search": 40, "select": 30, "report": 32})

    said = TimePlan(60.0).describe(fewer, WHOLE)

    assert "reading 6 s, sweep 7 s, search 20 s" in said
    assert said.endswith("enough for 32 of 50 images to report on")


def test_when_the_time_is_up_all_policies_were_asked_about_the_same_images() -> None:
    cell = describe_cell(torch.device("cpu"), torch.float32, 2, 32)
    evaluator = PolicyEvaluator(tiny.model(), WHOLE, cell, seed=0)
    spec = describe(evaluator.model)
    policies = [Policy(spec), *(Policy(spec, (Prune(1, keep),)) for keep in (8, 4))]
    late = FinalScorer(evaluator, Quiet(), TimePlan(1.0, began=monotonic() - 10))

    results = late.score(policies, "report", "quoting")

    assert [len(result) for result in results] == [CHUNK] * 3
    assert [len(result) for result in late.score(policies[:1], "report", "quoting")] == [CHUNK]


@pytest.fixture
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())


@pytest.mark.usefixtures("_no_clock")
def test_a_run_without_time_still_hands_back_a_policy(tmp_path: Path) -> None:
    short = replace(session(tmp_path, trials=1, target="0.7x"), limits=SearchBudget(None, 0.01))

    result = short.run().finished

    assert result.outcome == "met"
    assert (tmp_path / "policy.json").exists()
    assert len(result.finalists) <= LEAST_FINALISTS
    assert "the time was up before profiles were taken: allow more --minutes" in result.cautions


@pytest.mark.usefixtures("_no_clock")
def test_what_policies_share_is_freed_once_the_search_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, forget = list[int](), PolicyEvaluator.forget_activations

    def note(evaluator: PolicyEvaluator) -> None:
        kept.append(evaluator._prefix_cache.bytes)
        forget(evaluator)
        kept.append(evaluator._prefix_cache.bytes)

    monkeypatch.setattr(PolicyEvaluator, "forget_activations", note)

    session(tmp_path, trials=6, target="0.7x").run()

    assert kept[0] > 0
    assert kept[1:] == [0]


class Counting(Quiet):
    """Remembers of how much the search is."""

    def __init__(self) -> None:
        super().__init__()
        self.totals: list[int] = []

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        super().progress(done=done, total=total, seconds_left=seconds_left, text=text)
        if self.stages[-1].startswith("searching"):
            self.totals.append(total)


@pytest.mark.usefixtures("_no_clock")
def test_the_bar_of_a_search_does_not_count_the_seconds_of_the_stages_before(
    tmp_path: Path,
) -> None:
    """Of the 67 s by which it is to end, 60 had gone when it began."""
    counting = Counting()
    asked = replace(session(tmp_path, trials=1), limits=SearchBudget(None, 100.0))
    run = replace(asked, listener=counting)
    run.folder.create()

    run.searched(run.evaluator(), TimePlan(100.0, began=monotonic() - 60))

    assert counting.totals
    assert max(counting.totals) <= 7


@pytest.mark.usefixtures("_no_clock")
def test_a_run_that_had_time_for_fewer_images_goes_on_with_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few: dict[Purpose, int] = {"search": 32, "select": 24, "report": 16}
    monkeypatch.setattr("tokensearch.search.run.count_images", lambda *_: few)
    session(tmp_path, trials=3, target="0.7x").run()
    monkeypatch.setattr("tokensearch.search.run.count_images", lambda *_: {**few, "report": 50})

    document = session(tmp_path, trials=4, target="0.7x").run()

    assert {name: split.images for name, split in document.data.splits.items()} == few
    assert document.data.report.of == 50


@pytest.mark.usefixtures("_no_clock")
def test_controls_come_last_and_are_a_fifth_of_the_trials_at_most(tmp_path: Path) -> None:
    session(tmp_path, trials=10, target="0.7x").run()

    origins = [trial.origin for trial in RunFolder(tmp_path).read_trials()]
    kinds = Counter(origins)
    assert origins[0] == "none"
    assert 1 <= kinds["random"] <= 2
    assert "random" not in origins[:8]
    assert kinds["seed"] + kinds["sampler"] >= 5
