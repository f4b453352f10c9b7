from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.search import tiny
from tests.search.tiny import CONFIG, by_macs, session
from tokensearch.accuracy.store import PredictionStore
from tokensearch.data.pixels import Preprocessing
from tokensearch.errors import ModelError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.predictions import PROBES
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.policy import ModelSpec, Policy, Prune
from tokensearch.records.measurements import Comparison
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import Alternative, RunResult
from tokensearch.report.run.page import write_report
from tokensearch.runtime import describe
from tokensearch.search.finalists import alternatives as module
from tokensearch.search.finalists import finish as outcome
from tokensearch.search.finalists.alternatives import (
    AlternativeModel,
    at_resolution,
    find_alternatives,
    fit_resolution,
    pixels_within,
    resized,
    score_alternatives,
    smaller_model,
)

# Optuna's SQLite engine is closed by the garbage collector, which Python reports.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

DEIT = ModelSpec("deit", 12, 196, 1, 384)
BUDGET = TimingBudget(warmup=0, max_rounds=12, seconds=1, precision=0.5)
CELL = describe_cell(torch.device("cpu"), torch.float32, 2, 32)
GIVEN = Preprocessing.of(CONFIG)


class Rigid(nn.Module):
    """A model that cannot change its input size."""


def evaluator(**changes: Any) -> PolicyEvaluator:
    return tiny.Unclocked(tiny.model(), tiny.splits(), CELL, 0, **changes)


def itself() -> AlternativeModel:
    return smaller_model("itself", tiny.model(), given=GIVEN, own=GIVEN)


def found(
    one: PolicyEvaluator, *, smaller: AlternativeModel | None = None
) -> tuple[Alternative, ...]:
    answer = Policy(describe(tiny.model()))
    return measured(one, tiny.Quiet(), target_ratio=0.6, answer=answer, smaller=smaller)


def measured(
    one: PolicyEvaluator,
    watcher: tiny.Quiet,
    *,
    target_ratio: float,
    answer: Policy | None = None,
    smaller: AlternativeModel | None = None,
) -> tuple[Alternative, ...]:
    """What is as fast, as a run finds, times and scores it."""
    models = find_alternatives(one, watcher, target_ratio=target_ratio, smaller=smaller)
    timed = one.time_together((), BUDGET, others=[model.on(one.images) for model in models])
    return score_alternatives(models, timed, one, watcher, images=50, answer=answer)


def test_the_largest_size_whose_blocks_promise_the_target_is_taken() -> None:
    assert pixels_within(DEIT, 16, target_ratio=1.0) == 208
    assert pixels_within(DEIT, 16, target_ratio=0.5) == 160
    assert pixels_within(DEIT, 16, target_ratio=0.001) is None


def test_a_smaller_size_leaves_the_model_itself_alone() -> None:
    model = tiny.model()
    contender = at_resolution(model, 24)

    assert (contender.name, contender.pixels) == ("24 px", 24)
    assert describe(contender.module).patch_tokens == 9
    assert describe(model).patch_tokens == 16
    assert contender.module(contender.prepare(torch.randn(2, 3, 32, 32))).shape == (2, 5)


@pytest.mark.parametrize(
    ("model", "target_ratio", "message"),
    [
        (Rigid(), 0.6, "a Rigid cannot change its input size"),
        (tiny.model(), 0.01, "one patch alone takes more than 0.01x of a pass"),
    ],
)
def test_what_has_no_lower_resolution_says_why(
    model: nn.Module, target_ratio: float, message: str
) -> None:
    with pytest.raises(ModelError) as raised:
        fit_resolution(replace(evaluator(), model=model), target_ratio)

    assert str(raised.value) == message


def test_a_model_without_a_lower_resolution_is_noted_and_left_out() -> None:
    watcher = tiny.Quiet()

    assert measured(evaluator(), watcher, target_ratio=0.01) == ()
    assert watcher.notes == [
        "no lower resolution to compare with: one patch alone takes more than 0.01x of a pass"
    ]


class Failing(nn.Module):
    """A model that runs out of memory."""

    def forward(self, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")


def test_a_rival_that_runs_out_of_memory_is_left_out_with_a_caution() -> None:
    watcher, huge = tiny.Quiet(), replace(itself(), name="huge", module=Failing(), key="huge")

    clocked = PolicyEvaluator(tiny.model(), tiny.splits(), CELL, seed=0)

    (lower,) = measured(clocked, watcher, target_ratio=0.6, smaller=huge)

    assert lower.kind == "resolution"
    assert watcher.cautions == ["huge is left out of the report: CUDA out of memory"]


def test_a_lower_resolution_without_memory_for_it_is_left_out_with_a_caution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> AlternativeModel:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("tokensearch.search.finalists.alternatives.fit_resolution", full)
    watcher = tiny.Quiet()

    assert measured(evaluator(), watcher, target_ratio=0.6) == ()
    assert watcher.cautions == ["no lower resolution to compare with: out of memory"]


def test_images_are_shrunk_without_aliasing() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 3, 32, 32)

    assert (resized(stripes, pixels=16)[..., 2:-2] - 0.5).abs().max() < 0.05
    assert resized(stripes, pixels=32) is stripes


def test_a_smaller_model_sees_the_images_in_its_own_normalisation_and_size() -> None:
    own = replace(GIVEN, size_px=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    contender = smaller_model("other", tiny.model(), given=GIVEN, own=own)
    grey = GIVEN.normalised(torch.full((3, 32, 32), 51, dtype=torch.uint8))

    seen = contender.prepare(grey[None])

    torch.testing.assert_close(seen, torch.full((1, 3, 16, 16), 0.2))


def test_a_rival_with_the_same_weights_answers_as_the_unreduced_model() -> None:
    lower, same = found(evaluator(), smaller=itself())

    assert (same.name, same.report.right, same.report.images) == ("itself", 50, 50)
    assert (same.paired.difference, same.report.kl) == (0.0, 0.0)
    assert same.lead is not None
    assert same.lead.difference == 0.0
    assert lower.comparison.ratio < 0.6


def test_answers_of_rivals_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PredictionStore(tmp_path / "answers.db")
    before = found(evaluator(store=store), smaller=itself())
    asked, logits = [], module._logits

    def counted(one: AlternativeModel, *how: Any) -> torch.Tensor:
        asked.append(len(how[-1]))
        return logits(one, *how)

    monkeypatch.setattr(module, "_logits", counted)

    after = found(evaluator(store=store), smaller=itself())

    assert asked == [PROBES, PROBES]
    assert [one.report for one in after] == [one.report for one in before]


def test_a_rival_is_timed_on_its_own_images_in_turn_with_the_unreduced_model() -> None:
    one = PolicyEvaluator(tiny.model(), tiny.splits(), CELL, seed=0)
    policy, contender = Policy(describe(one.model), (Prune(1, 8),)), at_resolution(one.model, 24)

    policy_timed, timed = one.time_together([policy], BUDGET, others=[contender.on(one.images)])

    assert len(timed.baseline.passes_ms) == len(timed.candidate.passes_ms) == 12
    assert policy_timed.baseline == timed.baseline


@pytest.mark.parametrize(("slowness", "pixels"), [(0.5, 24), (1.0, 24), (2.0, 16), (9.0, 8)])
def test_the_lower_resolution_is_the_largest_that_meets_the_target_by_the_clock(
    monkeypatch: pytest.MonkeyPatch, slowness: float, pixels: int
) -> None:
    by_macs = tiny.Unclocked.time_model

    def slower(*asked: Any) -> Comparison:
        return tiny.promised(slowness * by_macs(*asked).ratio)

    monkeypatch.setattr(tiny.Unclocked, "time_model", slower)

    assert fit_resolution(evaluator(), 0.6).pixels == pixels


def result_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> RunResult:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(outcome, "_profile", lambda *_: None)  # takes seconds, changes nothing
    smaller = options.pop("smaller", None)
    asked = replace(session(folder, trials=6, **options), smaller=smaller)
    return asked.run().finished


def test_a_search_that_reduces_shows_what_else_would_be_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = result_of(tmp_path, monkeypatch, target="0.6x", smaller=itself())

    lower, same = result.alternatives
    assert (lower.name, lower.kind, lower.pixels) == ("24 px", "resolution", 24)
    assert lower.report.split == "report"
    assert (same.name, same.kind) == ("itself", "model")
    assert result.answer_hash is not None
    assert lower.lead.images == 50


def test_profiles_that_cannot_be_taken_do_not_cost_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)

    def full(*_: object) -> None:
        folder.write_profile("answer", {"of": "one of two"})
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(outcome, "_profile", full)

    result = session(tmp_path, trials=6, target="0.6x").run().finished
    write_report(folder)

    assert result.outcome == "met"
    assert "no profiles could be taken: CUDA out of memory" in result.cautions
    assert not (folder.profiles / "answer.json").exists()
    assert "No profiles were taken in this run." in folder.report.read_text()


def test_a_smaller_model_is_added_to_a_finished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = result_of(tmp_path, monkeypatch, target="0.6x")
    again = result_of(tmp_path, monkeypatch, target="0.6x", smaller=itself())

    assert [one.name for one in first.alternatives] == ["24 px"]
    assert [one.name for one in again.alternatives] == ["24 px", "itself"]
    assert again.answer_hash == first.answer_hash


def test_where_the_unreduced_model_is_fast_enough_nothing_else_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert result_of(tmp_path, monkeypatch, smaller=itself()).alternatives == ()
