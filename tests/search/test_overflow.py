"""A policy whose numbers overflow fails alone, and the block where they do is named."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from tests.search import tiny
from tests.search.clockless import no_clock
from tokensearch.errors import ExportError, MeasurementError
from tokensearch.evaluation.latency import PolicyTimer
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy
from tokensearch.records.measurements import Comparison, Trial
from tokensearch.search.loop import SearchLoop
from tokensearch.search.sampler.study import StudyAdapter

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

FEW = range(8, 17)  # of the tiny model's 17 tokens; more than a block is opened with as a test


class Overflowing(nn.Module):
    """Overflows where tokens are missing, or always."""

    def __init__(self, inner: nn.Module, *, always: bool) -> None:
        super().__init__()
        self.inner, self.always = inner, always

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out * inf if self.always or x.shape[1] in FEW else out


def overflowing(*, always: bool) -> nn.Module:
    model = tiny.model()
    model.blocks[4].mlp = Overflowing(model.blocks[4].mlp, always=always)
    return model


def test_a_policy_that_overflows_fails_alone_and_its_block_is_named(tmp_path: Path) -> None:
    session = replace(tiny.session(tmp_path / "run", trials=5), model=overflowing(always=False))

    with no_clock():
        document = session.run()

    failed = [text for text in session.listener.cautions if text.startswith("a trial failed")]
    assert failed
    assert all("block 4 is the first whose tokens are not finite" in text for text in failed)
    assert "the model's logits are not finite for image 0 of the search split" in failed[0]
    assert document.result is not None
    trials = session.folder.read_trials()
    assert trials[0].origin == "none"
    assert any(trial.origin != "none" for trial in trials)


def test_a_policy_that_cannot_be_exported_fails_alone(tmp_path: Path) -> None:
    def refuse_one(self: PolicyTimer, policy: Policy, budget: TimingBudget, **_: Any) -> Comparison:
        refused.add(policy.schedule_hash)
        if len(refused) == 2:  # the first is the baseline
            refused.add("the only one")
            raise ExportError("the file computes something else")
        return tiny.by_macs(self, policy, budget)

    refused, session = set[str](), tiny.session(tmp_path / "run", trials=5)
    with no_clock(), pytest.MonkeyPatch.context() as patch:  # undone before that of no_clock
        patch.setattr(PolicyTimer, "time", refuse_one)
        document = session.run()

    failed = [text for text in session.listener.cautions if text.startswith("a trial failed")]
    assert [("computes something else" in text) for text in failed] == [True]
    assert document.result is not None
    assert len(session.folder.read_trials()) > 1


def test_a_policy_that_overflowed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, enqueue, evaluate = list[str](), StudyAdapter.enqueue, SearchLoop._evaluate

    def enqueue_twice(self: StudyAdapter, points: Iterable[Mapping[str, object]]) -> None:
        enqueue(self, [point for point in points for _ in range(2)])

    def note(self: SearchLoop, policy: Policy, origin: str, *, race: bool) -> Trial:
        tried.append(policy.schedule_hash)
        return evaluate(self, policy, origin, race=race)

    monkeypatch.setattr(StudyAdapter, "enqueue", enqueue_twice)
    monkeypatch.setattr(SearchLoop, "_evaluate", note)
    session = replace(tiny.session(tmp_path / "run", trials=5), model=overflowing(always=False))

    with no_clock():
        session.run()

    failed = {*tried} - {trial.schedule_hash for trial in session.folder.read_trials()}
    assert failed
    assert [tried.count(schedule) for schedule in failed] == [1] * len(failed)


def test_a_baseline_that_overflows_ends_the_run(tmp_path: Path) -> None:
    session = replace(tiny.session(tmp_path / "run", trials=5), model=overflowing(always=True))

    with no_clock(), pytest.raises(MeasurementError, match="are not finite for image 0"):
        session.run()
