"""The answer and the baseline in other settings than those of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.search import tiny
from tests.search.tiny import by_macs, session
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import TimingBudget, describe_cell
from tokensearch.policy import Policy, Prune
from tokensearch.records.run_result import RunDocument
from tokensearch.report.run.alternatives import alternative_table, settings_sentences
from tokensearch.runtime import describe
from tokensearch.search.finalists.other_settings import (
    OtherSettings,
    list_settings,
    make_variants,
)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of Optuna's SQLite engine

CELL = describe_cell(torch.device("cpu"), torch.float32, 2, 32)
SMALLER = OtherSettings(24, "float32", "eager")
HALF = OtherSettings(32, "bfloat16", "eager")


def evaluator() -> PolicyEvaluator:
    return PolicyEvaluator(tiny.model(), tiny.splits(), CELL, seed=0)


def answer() -> Policy:
    return Policy(describe(tiny.model()), (Prune(1, 8),))


def test_every_combination_is_tried_but_the_runs_own() -> None:
    wanted = list_settings(CELL, resolutions=(24, 32), dtypes=("float32", "bfloat16"))

    assert [each.name for each in wanted] == [
        "24 px, float32, eager",
        "24 px, bfloat16, eager",
        "32 px, bfloat16, eager",
    ]
    assert list_settings(CELL) == ()


def test_a_variant_follows_the_answer_by_ratio_in_its_own_number_type() -> None:
    policy, listener = answer(), tiny.Quiet()

    own, bare, follows, *halves = make_variants(evaluator(), (SMALLER, HALF), policy, listener)

    assert own.name == "the answer at 32 px, float32, eager"
    assert bare.name == "the baseline at 24 px, float32, eager"
    assert follows.name == "the answer at 24 px, float32, eager"
    images = torch.randn(2, 3, 32, 32)
    assert follows.on(images).images.shape == (2, 3, 24, 24)
    assert [each.on(images).images.dtype for each in halves] == [torch.bfloat16] * 2
    assert all(each.module(each.on(images).images).dtype == torch.bfloat16 for each in halves)
    assert len({each.key for each in (own, bare, follows, *halves)}) == 5
    assert listener.cautions == []


def test_settings_of_which_this_machine_is_not_capable_are_left_out_with_a_caution() -> None:
    listener = tiny.Quiet()
    captured = OtherSettings(32, "float32", "cudagraph")

    assert make_variants(evaluator(), (captured,), None, listener) == ()
    assert listener.cautions[0].startswith("32 px, float32, cudagraph is left out of the report: ")


def test_one_more_pass_of_another_backend_is_timed_beside_the_others() -> None:
    timed = evaluator()
    compiled = OtherSettings(32, "float32", "compile")
    budget = TimingBudget(warmup=0, max_rounds=12, seconds=1, precision=0.5)
    (variant,) = make_variants(timed, (replace(compiled, backend="eager"),), None, tiny.Quiet())
    ran: list[str] = []

    def with_backend(model: torch.nn.Module, backend: str, *_: object, **__: object) -> object:
        ran.append(backend)
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokensearch.evaluation.latency.prepare_backend", with_backend)
        other = replace(variant, backend="compile").on(timed.images)
        timed.time_together((), budget, others=[other], tell=lambda *_: None)

    assert ran == ["compile"]  # the baseline is the one of before


def test_a_run_tells_what_the_answer_would_be_in_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
    run = replace(session(tmp_path, trials=5, target="0.6x"), other_settings=(SMALLER,))

    document = run.run()

    tried = [each for each in document.finished.alternatives if each.kind == "settings"]
    assert [each.pixels for each in tried] == [32, 24, 24]
    assert tried[1].name == "the baseline at 24 px, float32, eager"
    assert tried[2].comparison.ratio < tried[1].comparison.ratio < 1
    answer = document.finished.answer
    assert answer is not None
    assert tried[0].report == answer.report  # what is tried is the answer itself
    assert RunDocument.from_json(document.to_json()) == document
    assert document.other_settings == ("24 px, float32, eager",)
    assert "at 24 px, float32, eager" in str(alternative_table(document).rows)
    (said,) = settings_sentences(document)
    assert said.startswith(("None of 2 rows in other settings", "Better than the answer in other"))


def test_a_finished_run_goes_on_when_other_settings_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PolicyEvaluator, "time", by_macs)
    monkeypatch.setattr(PolicyEvaluator, "profile", lambda *_, **__: ())
    session(tmp_path, trials=5, target="0.6x").run()

    again = replace(session(tmp_path, trials=5, target="0.6x"), other_settings=(HALF,)).run()

    assert again.other_settings == ("32 px, bfloat16, eager",)
    assert {"settings"} < {each.kind for each in again.finished.alternatives}
